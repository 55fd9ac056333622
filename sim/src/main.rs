use std::sync::Arc;
use std::time::Duration;
use strandline_node::config::{FormCluster, HostPort, NodeConfig};
use strandline_record::BrokerId;
use strandline_sim::history::Acks;
use strandline_sim::trace::{Detail, Trace};
use strandline_sim::workload::produce::{ProducerPlan, produce};
use strandline_sim::world::{ClientWorld, PEER_PORT, World};

#[allow(clippy::disallowed_methods)]
fn main() {
    let args: Vec<String> = std::env::args().collect();
    let seed: u64 = args[1].parse().unwrap();
    let detail = if args.len() > 2 { Detail::Everything } else { Detail::Notes };
    let mut trace = Trace::new(detail);
    if args.len() > 2 {
        trace = trace.to_file(args[2].as_ref()).unwrap();
        tracing_subscriber::fmt()
            .with_ansi(false)
            .without_time()
            .with_env_filter(std::env::var("F").unwrap_or("info,turmoil=warn".into()))
            .with_writer(strandline_sim::trace::LogLines(trace.clone()))
            .init();
    }
    let started = std::time::Instant::now();
    let mut world = World::new(seed, trace.clone(), vec![]);
    let members: std::collections::BTreeMap<_, _> =
        (1..=3).map(|id| (BrokerId(id), HostPort::new(format!("node-{id}"), PEER_PORT))).collect();
    for id in 1..=3 {
        let mut config = NodeConfig::new(BrokerId(id), "/data");
        config.form_cluster = Some(FormCluster(members.clone()));
        config.journal_file_bytes = 4 << 20;
        config.disk_reserved_bytes = 16 << 20;
        world.add_node(config);
    }
    let ok = world
        .run_until(Duration::from_secs(20), |w| {
            w.views().len() == 3
                && w.views()
                    .values()
                    .all(|v| v.image.brokers.len() == 3 && v.image.brokers.values().all(|b| !b.fenced))
        })
        .unwrap();
    println!("formed {ok} at {} ms, wall {:?}", world.now_us() / 1000, started.elapsed());
    let bootstrap = world.bootstrap();
    let b = bootstrap.clone();
    world.add_client(
        "admin",
        Arc::new(move |w: ClientWorld| {
            let b = b.clone();
            Box::pin(async move {
                let client = w.sdk(&b).build().unwrap();
                let made = client
                    .admin()
                    .create_topic(strandline_client::NewTopic::new("t").partitions(4).replication_factor(3))
                    .await;
                w.recorder.note(&w.name, format_args!("{made:?}"));
            })
        }),
    );
    world.run_for(Duration::from_secs(1)).unwrap();
    for n in 0..2 {
        let plan = ProducerPlan {
            bootstrap: bootstrap.clone(),
            topic: "t".into(),
            partitions: 4,
            acks: Acks::All,
            idempotent: true,
            pause: Duration::from_millis(20),
            value_bytes: 100,
        };
        world.add_client(&format!("producer-{n}"), Arc::new(move |w| Box::pin(produce(w, plan.clone()))));
    }
    world.run_for(Duration::from_secs(60)).unwrap();
    for line in trace.recent().iter().rev().take(6) {
        println!("{line}");
    }
    println!("{:?} wall {:?}", trace.hash(), started.elapsed());
    trace.finish().unwrap();
}
