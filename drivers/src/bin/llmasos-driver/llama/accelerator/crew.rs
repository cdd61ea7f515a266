//! The threads that work on an operation: ggml's own.
//!
//! A pool beside ggml's would fight with it for the cores, since ggml's threads look for the next graph for a while
//! before they sleep. So an operation runs as a graph of one custom node, on a CPU backend of its own, and with the
//! pool of the context that is computing.

use std::cell::Cell;
use std::ffi::{c_int, c_void};

use llama_cpp_sys_2 as sys;

use super::interface::cpu_function;

/// ggml's number for as many tasks as there are threads.
const TASKS_ALL: c_int = -1;

/// Nodes of the graph, with room for what ggml adds to it.
const GRAPH_NODES: usize = 4;

type SetThreads = unsafe extern "C" fn(sys::ggml_backend_t, c_int);
type SetPool = unsafe extern "C" fn(sys::ggml_backend_t, sys::ggml_threadpool_t);

/// What the threads run, each with its number, while a graph is computed.
type Task = Cell<Option<*const (dyn Fn(usize) + Sync)>>;

/// A CPU backend with its graph of one node.
pub struct Crew {
    backend: sys::ggml_backend_t,
    context: *mut sys::ggml_context,
    graph: *mut sys::ggml_cgraph,
    /// On the heap, since the graph knows where it is.
    task: Box<Task>,
    set_threads: SetThreads,
    set_pool: SetPool,
}

impl Drop for Crew {
    fn drop(&mut self) {
        // SAFETY: both came from ggml and are freed once; no graph is under way.
        unsafe {
            sys::ggml_backend_free(self.backend);
            sys::ggml_free(self.context);
        }
    }
}

impl Crew {
    /// None where the CPU backend keeps no threads that others may use.
    pub fn new() -> Option<Crew> {
        let set_threads = cpu_function(c"ggml_backend_set_n_threads")?;
        let set_pool = cpu_function(c"ggml_backend_cpu_set_threadpool")?;
        let task: Box<Task> = Box::new(Cell::new(None));
        // SAFETY: the functions have these types under these names. The context has room for one node and the graph,
        // and lives as long as the crew; the node's data is the task, which lives as long, too.
        unsafe {
            let device = sys::ggml_backend_dev_by_type(sys::GGML_BACKEND_DEVICE_TYPE_CPU);
            let backend = sys::ggml_backend_dev_init(device, std::ptr::null());
            if backend.is_null() {
                return None;
            }
            let mem_size =
                4 * sys::ggml_tensor_overhead() + sys::ggml_graph_overhead_custom(GRAPH_NODES, false);
            let context = sys::ggml_init(sys::ggml_init_params {
                mem_size,
                mem_buffer: std::ptr::null_mut(),
                no_alloc: false,
            });
            if context.is_null() {
                sys::ggml_backend_free(backend);
                return None;
            }
            let data = (&raw const *task).cast_mut().cast::<c_void>();
            let (kind, none) = (sys::GGML_TYPE_F32, std::ptr::null_mut());
            let node =
                sys::ggml_custom_4d(context, kind, 1, 1, 1, 1, none, 0, Some(run_task), TASKS_ALL, data);
            let graph = sys::ggml_new_graph_custom(context, GRAPH_NODES, false);
            sys::ggml_build_forward_expand(graph, node);
            Some(Crew {
                backend,
                context,
                graph,
                task,
                set_threads: std::mem::transmute::<*mut c_void, SetThreads>(set_threads),
                set_pool: std::mem::transmute::<*mut c_void, SetPool>(set_pool),
            })
        }
    }

    /// Runs a task on so many threads of a pool, this one included. False if ggml could not.
    pub fn run(
        &mut self,
        pool: sys::ggml_threadpool_t,
        threads: usize,
        task: &(dyn Fn(usize) + Sync),
    ) -> bool {
        // SAFETY: only the lifetime changes: the task is taken away again before this returns.
        let forever = unsafe {
            std::mem::transmute::<*const (dyn Fn(usize) + Sync), *const (dyn Fn(usize) + Sync + 'static)>(
                task,
            )
        };
        self.task.set(Some(forever));
        // SAFETY: the pool lives as long as the context whose pass this is, and computes nothing else meanwhile.
        let status = unsafe {
            (self.set_pool)(self.backend, pool);
            (self.set_threads)(self.backend, threads as c_int);
            sys::ggml_backend_graph_compute(self.backend, self.graph)
        };
        self.task.set(None);
        status == sys::GGML_STATUS_SUCCESS
    }
}

unsafe extern "C" fn run_task(_: *mut sys::ggml_tensor, number: c_int, _: c_int, data: *mut c_void) {
    // SAFETY: the data is the crew's task, which is there while its graph is computed and changes only before and
    // after; all threads may call it at once.
    unsafe {
        if let Some(task) = (*data.cast::<Task>()).get() {
            (*task)(number as usize);
        }
    }
}
