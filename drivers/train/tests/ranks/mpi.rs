//! Collectives by MPI give what those of threads give, also where one call cannot have all numbers.

use std::process::Command;
use std::sync::Arc;

use train::ranks::{Combine, Group, Message, Mpi, Numbers, RankError, on_threads, piece};

/// Ranks, of which no count of numbers here is a multiple.
const RANKS: usize = 3;

/// Numbers of one call, where those of the test are many more.
const CALL_MAX: usize = 7;

/// What a rank has after each collective, and after messages of every kind.
fn everything(group: &dyn Group) -> Result<Vec<Vec<f64>>, RankError> {
    let (rank, size) = (group.rank(), group.size());
    let mut all = Vec::new();
    for length in [0, 1, 2, 7, 8, 64] {
        let own: Vec<f64> = (0..length).map(|i| (rank * 100 + i) as f64).collect();
        for combine in [Combine::Sum, Combine::Max] {
            let mut numbers = own.clone();
            group.all_reduce(Numbers::F64(&mut numbers), combine)?;
            all.push(numbers);
        }
        let mut sums: Vec<f64> = own.clone();
        group.reduce_scatter(Numbers::F64(&mut sums))?;
        all.push(sums[piece(length, rank, size)].to_vec());
        let mut gathered: Vec<f32> = own.iter().map(|number| *number as f32).collect();
        group.all_gather(Numbers::F32(&mut gathered))?;
        all.push(gathered.into_iter().map(f64::from).collect());
        let mut bytes: Vec<u8> = own.iter().map(|number| *number as u8).collect();
        group.broadcast(&mut bytes, size - 1)?;
        all.push(bytes.iter().map(|byte| f64::from(*byte)).collect());
        let (to, from) = ((rank + 1) % size, (rank + size - 1) % size);
        group.send(to, Message::F64(own.clone()))?;
        group.send(to, Message::F32(own.iter().map(|number| *number as f32).collect()))?;
        group.send(to, Message::Bytes(own.iter().map(|number| *number as u8).collect()))?;
        all.push(group.receive_numbers::<f64>(from, length)?);
        all.push(group.receive_numbers::<f32>(from, length)?.into_iter().map(f64::from).collect());
        match group.receive(from)? {
            Message::Bytes(bytes) => all.push(bytes.iter().map(|byte| f64::from(*byte)).collect()),
            other => panic!("{other:?}"),
        }
    }
    Ok(all)
}

/// Starts itself again under mpirun; those processes are the ranks.
#[test]
fn what_is_longer_than_one_call_can_have_goes_in_several() {
    let started = ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE"].iter().any(|name| std::env::var_os(name).is_some());
    if started {
        let mpi = Mpi::start().unwrap().in_calls_of(CALL_MAX);
        let world = mpi.world();
        assert_eq!(world.here(), RANKS);
        if world.rank() == 0 {
            // It is known by now, and one rank may ask for it alone.
            assert_eq!(world.here(), RANKS);
        }
        let found = everything(&*world).unwrap();
        let again = everything(&*world.split(0).unwrap()).unwrap();
        let ends = on_threads(RANKS, 1, |world: Arc<dyn Group>| everything(&*world).unwrap());
        let wanted = ends.into_iter().nth(world.rank()).unwrap().unwrap();
        assert_eq!((&found, &again), (&wanted, &wanted));
        return;
    }
    let program = std::env::var_os("MPIRUN").unwrap_or_else(|| "mpirun".into());
    if !Command::new(&program).arg("--version").output().is_ok_and(|output| output.status.success()) {
        return eprintln!("skipped: this machine has no mpirun");
    }
    let name = "mpi::what_is_longer_than_one_call_can_have_goes_in_several";
    let mut command = Command::new(program);
    command.args(["-n", &RANKS.to_string()]).arg(std::env::current_exe().unwrap()).args(["--exact", name]);
    command.env("OMPI_MCA_rmaps_base_oversubscribe", "1");
    command.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
    let output = command.output().unwrap();
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert_eq!(said.matches("1 passed").count(), RANKS, "{said}");
}
