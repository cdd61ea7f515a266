//! Collectives, and what becomes of a rank whose neighbour is gone.

use train::ranks::{Combine, Layout, Mesh, Message, Numbers, RankError, on_threads, piece, together};
use train::run::{Memory, RunError};

#[test]
fn collectives_of_threads_give_what_they_promise() {
    for size in [1, 2, 3, 5, 8] {
        let done = on_threads(size, 1, |world| {
            let rank = world.rank();
            // Fewer numbers than ranks, too.
            for length in [0, 1, 4, 37] {
                let own = |rank: usize| (0..length).map(move |i| (rank * 100 + i) as f64);
                let sums: Vec<f64> =
                    (0..length).map(|i| (0..size).map(|r| (r * 100 + i) as f64).sum()).collect();
                let mut numbers: Vec<f64> = own(rank).collect();
                world.all_reduce(Numbers::F64(&mut numbers), Combine::Sum)?;
                assert_eq!(numbers, sums);
                let mut numbers: Vec<f64> = own(rank).collect();
                world.all_reduce(Numbers::F64(&mut numbers), Combine::Max)?;
                assert!(numbers.iter().copied().eq(own(size - 1)));
                let mut numbers: Vec<f64> = own(rank).collect();
                world.reduce_scatter(Numbers::F64(&mut numbers))?;
                let mine = piece(length, rank, size);
                assert_eq!(numbers[mine.clone()], sums[mine.clone()]);
                let mut numbers = vec![-1.0f32; length];
                numbers[mine].fill(rank as f32);
                world.all_gather(Numbers::F32(&mut numbers))?;
                assert!((0..size).all(|r| numbers[piece(length, r, size)].iter().all(|n| *n == r as f32)));
            }
            let mut bytes = vec![rank as u8; 3];
            world.broadcast(&mut bytes, size - 1)?;
            assert_eq!(bytes, [size as u8 - 1; 3]);
            world.barrier()
        });
        done.into_iter().for_each(|end| end.unwrap().unwrap());
    }
}

#[test]
fn mesh_groups_those_that_differ_along_one_axis() {
    let layout = Layout { data: 2, tensor: 3, pipeline: 2 };
    let ends = on_threads(12, 1, |world| {
        let rank = world.rank();
        let mesh = Mesh::new(world, layout)?;
        let place = [mesh.data().rank(), mesh.tensor().rank(), mesh.pipeline().rank()];
        assert_eq!(place, layout.place(rank));
        assert_eq!([mesh.data().size(), mesh.tensor().size(), mesh.pipeline().size()], [2, 3, 2]);
        let sums =
            [mesh.data(), mesh.tensor().as_ref(), mesh.pipeline()].map(|group| group.sum([rank as f64]));
        let all = |axis: usize| {
            let same = |other: &usize| (0..3).all(|i| i == axis || layout.place(*other)[i] == place[i]);
            (0..12).filter(same).sum::<usize>() as f64
        };
        for (axis, sum) in sums.into_iter().enumerate() {
            assert_eq!(sum?, [all(axis)]);
        }
        Ok::<_, RankError>(())
    });
    ends.into_iter().for_each(|end| end.unwrap().unwrap());
}

#[test]
fn world_of_another_size_is_refused_with_both_numbers() {
    let ends =
        on_threads(3, 1, |world| Mesh::new(world, Layout { data: 2, tensor: 2, pipeline: 1 }).map(drop));
    for end in ends {
        let error = end.unwrap().unwrap_err().to_string();
        assert!(
            error.contains("data 2 × tensor 2 × pipeline 1 is 4 ranks, and 3 of them started"),
            "{error}"
        );
    }
}

/// Each rank looks for itself how much memory is free, on a machine of its own or a moment later than the others.
#[test]
fn rank_that_has_too_little_memory_has_all_others_refuse_with_its_reason() {
    let memory = Memory { weights: 3 << 20, gradients: 0, optimiser: 0, activations: 0, program: 0 };
    for refusing in 0..3 {
        let ends = on_threads(3, 1, |world| {
            let free = if world.rank() == refusing { 1 << 20 } else { u64::MAX };
            let begun = together(&*world, memory.check(free, false));
            // Those that could go on would wait here for the one that cannot.
            begun.and_then(|()| Ok(world.barrier()?))
        });
        for end in ends {
            let Err(RunError::Ranks(RankError::Refused { rank, why })) = end.unwrap() else {
                panic!("every rank is told")
            };
            assert_eq!(rank, refusing);
            assert!(why.contains("1 MiB are free"), "{why}");
        }
    }
    let ends = on_threads(3, 1, |world| together(&*world, Ok::<_, RunError>(world.rank())));
    let all: Vec<usize> = ends.into_iter().map(|end| end.unwrap().unwrap()).collect();
    assert_eq!(all, [0, 1, 2]);
}

#[test]
fn rank_that_dies_ends_all_others_with_its_name() {
    for dying in 0..4 {
        let ends = on_threads(4, 1, |world| {
            let rank = world.rank();
            let mesh = Mesh::new(world, Layout { data: 2, tensor: 2, pipeline: 1 })?;
            for step in 0.. {
                mesh.tensor().sum([1.0])?;
                if (rank, step) == (dying, 3) {
                    // A quiet panic: the default one would write to the terminal.
                    std::panic::resume_unwind(Box::new("it is meant to"));
                }
                mesh.data().sum([1.0])?;
                mesh.world().barrier()?;
            }
            Ok::<_, RankError>(())
        });
        for (rank, end) in ends.into_iter().enumerate().filter(|(rank, _)| *rank != dying) {
            let error = end.unwrap().unwrap_err();
            assert!(
                matches!(&error, RankError::Lost { rank, size: 4, .. } if *rank == dying),
                "{rank}: {error}"
            );
        }
    }
}

#[test]
fn message_of_another_kind_than_expected_is_an_error() {
    let ends = on_threads(2, 1, |world| match world.rank() {
        0 => world.send(1, Message::F64(vec![1.0; 3])).map(|()| String::new()),
        _ => Ok(world.receive_numbers::<f64>(0, 4).unwrap_err().to_string()),
    });
    let said: Vec<String> = ends.into_iter().map(|end| end.unwrap().unwrap()).collect();
    assert!(said[1].contains("24 bytes from rank 0, where 4 numbers were expected"), "{}", said[1]);
}
