//! What retention may take, and from whom.

use super::Scenario;
use super::script::{calm, first, missed, ms, seconds, set, small};
use crate::draw::Cast;
use crate::history::What;
use crate::stage::Stage;
use crate::world::Failure;

/// About two segments are kept, and that is looked after often.
pub fn short_retention(cast: &mut Cast) {
    cast.topics[0].facts.retention = true;
    set(&mut cast.topics[0], "retention.bytes", "131072");
    cast.twist.node = |config| {
        calm(config);
        config.log_retention_check_interval = ms(200);
    };
}

pub const RETENTION_UNDER_READER: Scenario = Scenario {
    name: "retention-under-reader",
    hazard: 41,
    about: "retention overtakes a reader that stood still: it gets whole records, or is told where the log begins",
    cast: |cast: &mut Cast| {
        small(cast, 3, 1);
        short_retention(cast);
        cast.producers = 3;
        cast.twist.producer = |_, plan| (plan.pause, plan.value_bytes) = (ms(8), 800);
    },
    play: |stage| stage.provoke(3, "a reader was overtaken by retention", retention_under_reader),
};

fn retention_under_reader(stage: &mut Stage<'_>) -> Result<bool, Failure> {
    let tp = first();
    let end = |stage: &Stage<'_>| {
        stage.leader_of(&tp).and_then(|leader| stage.replica(leader, &tp)).map_or(0, |at| at.high_watermark)
    };
    let start = |stage: &Stage<'_>| {
        stage.leader_of(&tp).and_then(|leader| stage.replica(leader, &tp)).map_or(0, |at| at.log_start)
    };
    let (told, stood) = (stage.history.len(), end(stage));
    let paused = stage.pause("reader-0");
    if !stage.wait(seconds(40), |stage| start(stage) > stood)? {
        return Ok(false);
    }
    stage.mend(paused);
    stage.wait(seconds(20), |stage| {
        stage.history[told..]
            .iter()
            .any(|event| matches!(event.what, What::OutOfRange { position, log_start, .. } if position < log_start))
    })
}

pub const BAD_TIMESTAMPS: Scenario = Scenario {
    name: "bad-timestamps",
    hazard: 42,
    about: "records claim to be decades old, or of decades to come: retention by time goes by when they came",
    cast: |cast: &mut Cast| {
        small(cast, 3, 1);
        // Nothing in this run is an hour old.
        set(&mut cast.topics[0], "retention.ms", "3600000");
        cast.twist.node = |config| {
            calm(config);
            config.log_retention_check_interval = ms(200);
        };
        cast.twist.producer = |_, plan| {
            // Fifty years either way.
            (plan.pause, plan.clock_off_ms, plan.value_bytes) = (ms(8), 50 * 365 * 86_400_000, 800);
        };
    },
    play: bad_timestamps,
};

fn bad_timestamps(stage: &mut Stage<'_>) -> Result<(), Failure> {
    let closed = |stage: &Stage<'_>| {
        let Some(leader) = stage.leader_of(&first()) else { return 0 };
        let files = stage.world.node(leader).machine().disk.files();
        files.iter().filter(|(path, _)| path.extension().is_some_and(|e| e == "log")).count()
    };
    stage.must(seconds(40), "segments were closed", |stage| closed(stage) > 4)?;
    // Retention passes several times.
    stage.run_for(seconds(2))?;
    match closed(stage) > 4 {
        true => Ok(()),
        false => Err(missed("closed segments that retention left alone")),
    }
}
