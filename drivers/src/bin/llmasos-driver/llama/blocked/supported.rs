//! Which attention operations the kernel computes.

use llama_cpp_sys_2 as sys;

/// Numbers of a head: whole vectors, and no more than there are zeros to stand in for a key.
const HEAD_WIDTHS: std::ops::RangeInclusive<i64> = 16..=256;
const HEAD_WIDTH_STEP: i64 = 16;

/// Whether the kernel computes this attention operation.
///
/// # Safety
///
/// The node is an attention operation of a graph.
pub unsafe fn supports(node: &sys::ggml_tensor) -> bool {
    let [q, k, v, mask, sinks] = [0, 1, 2, 3, 4].map(|at| node.src[at]);
    if mask.is_null() || !sinks.is_null() || node.type_ != sys::GGML_TYPE_F32 {
        return false;
    }
    // SAFETY: attention has queries, keys and values, and there is a mask.
    let (q, k, v, mask) = unsafe { (&*q, &*k, &*v, &*mask) };
    let half =
        |t: &sys::ggml_tensor| t.type_ == sys::GGML_TYPE_F16 && t.nb[0] == 2 && t.nb[1].is_multiple_of(2);
    let width = |n: i64| HEAD_WIDTHS.contains(&n) && n % HEAD_WIDTH_STEP == 0;
    let [_, softcap, most_cells] = [1, 2, 4].map(|at| node.op_params[at]);
    q.type_ == sys::GGML_TYPE_F32
        && q.nb[0] == 4
        && half(k)
        && half(v)
        && half(mask)
        && softcap == 0
        && most_cells == 0
        && width(k.ne[0])
        && width(v.ne[0])
        && q.ne[0] == k.ne[0]
        && k.ne[2] == v.ne[2]
        && k.ne[1] == v.ne[1]
        && k.ne[2] > 0
        && q.ne[2] % k.ne[2] == 0
        && [q.ne[3], k.ne[3], v.ne[3], mask.ne[3], mask.ne[2]] == [1; 5]
        && mask.ne[0] >= k.ne[1]
        && mask.ne[1] >= q.ne[1]
}
