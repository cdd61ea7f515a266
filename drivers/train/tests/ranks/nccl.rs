//! Collectives by NCCL give what threads give, where there are two cards; elsewhere it is said what is missing.

use std::sync::Arc;

use train::ranks::{Combine, Group, Nccl, Numbers, RankError, on_threads};

/// What a rank has after each collective.
fn collectives(group: &dyn Group) -> Result<Vec<Vec<f64>>, RankError> {
    let own = |rank: usize| (0..7).map(|i| (rank * 10 + i) as f64).collect::<Vec<f64>>();
    let mut sum = own(group.rank());
    group.all_reduce(Numbers::F64(&mut sum), Combine::Sum)?;
    let mut most = own(group.rank());
    group.all_reduce(Numbers::F64(&mut most), Combine::Max)?;
    let mut part = own(group.rank());
    group.reduce_scatter(Numbers::F64(&mut part))?;
    let mine = train::ranks::piece(7, group.rank(), group.size());
    let mut all = own(group.rank());
    group.all_gather(Numbers::F64(&mut all))?;
    Ok(vec![sum, most, part[mine].to_vec(), all])
}

#[test]
fn nccl_gives_what_threads_give_or_says_what_is_missing() {
    let ranks = |nccl: bool| {
        on_threads(2, 1, move |world: Arc<dyn Group>| {
            let world = if nccl { Nccl::over(world)? } else { world };
            collectives(&*world)
        })
    };
    let wanted: Vec<_> = ranks(false).into_iter().map(|end| end.unwrap().unwrap()).collect();
    for (rank, end) in ranks(true).into_iter().enumerate() {
        match end.unwrap() {
            Ok(found) => assert_eq!(found, wanted[rank]),
            Err(RankError::Unfit(why)) => {
                assert!(why.starts_with("--nccl: "), "{why}");
                eprintln!("skipped: {why}");
            }
            Err(other) => panic!("{other}"),
        }
    }
}
