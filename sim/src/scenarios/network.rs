//! Networks at their worst.

use super::Scenario;
use super::script::{missed, ms, seconds, small};
use crate::draw::Cast;
use crate::faults::FaultKind;
use crate::faults::links::Latency;
use crate::stage::Stage;
use crate::stage::direct::{host, hosts};
use crate::world::Failure;
use rand::RngExt;
use rand::seq::IndexedRandom;

pub const MESSY_NETWORK: Scenario = Scenario {
    name: "messy-network",
    hazard: 44,
    about: "every link delays and loses, and each second another one is cut in one direction",
    cast: |cast: &mut Cast| {
        small(cast, 3, 3);
        (cast.producers, cast.members) = (2, 3);
        cast.twist.node = |_| {};
    },
    play: messy_network,
};

fn messy_network(stage: &mut Stage<'_>) -> Result<(), Failure> {
    let mut rng = stage.world.seed().fork("play").rng();
    let ids = stage.world.node_ids();
    let clients: Vec<String> = stage.world.client_names().iter().map(|name| name.to_string()).collect();
    for (number, one) in ids.iter().enumerate() {
        let others = ids[number + 1..].iter().map(|id| host(*id)).chain(clients.iter().cloned());
        for other in others {
            let up_to = ms(rng.random_range(10..250));
            stage.change_link(&host(*one), &other, Latency::UpTo(up_to));
            stage.change_link(&host(*one), &other, Latency::Loss(rng.random_range(0.0005..0.01)));
        }
    }
    for _ in 0..12 {
        let one = *ids.choose(&mut rng).expect("there are nodes");
        let others: Vec<u64> = ids.iter().copied().filter(|id| *id != one).collect();
        let other = *others.choose(&mut rng).expect("there are others");
        let cut = stage.cut_one_way(&hosts([one]), &hosts([other]));
        stage.run_for(ms(rng.random_range(200..1_500)))?;
        stage.mend(cut);
    }
    stage.run_for(seconds(2))?;
    let counted = |kind| stage.injector.counters().of(kind);
    match counted(FaultKind::Loss) > 0
        && counted(FaultKind::Delay) > 0
        && counted(FaultKind::OneWayPartition) >= 12
    {
        true => Ok(()),
        false => Err(missed("not every link was disturbed")),
    }
}
