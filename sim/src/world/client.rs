//! A client's process: some asynchronous code around the ordinary SDK, over all its lives.

use super::Recorder;
use crate::clock::WallClock;
use crate::life::Life;
use crate::net::Net;
use crate::seeds::Seed;
use futures::future::LocalBoxFuture;
use parking_lot::Mutex;
use std::sync::Arc;

/// What a client does in one life.
pub type ClientSoftware = Arc<dyn Fn(ClientWorld) -> LocalBoxFuture<'static, ()>>;

/// What a client's code gets of the world.
#[derive(Clone, Debug)]
pub struct ClientWorld {
    /// Its name in the network and in the trace.
    pub name: Arc<str>,
    /// Counted from 1.
    pub life: u64,
    pub seed: Seed,
    pub net: Net,
    pub clock: WallClock,
    pub recorder: Recorder,
}

impl ClientWorld {
    /// The SDK, on this world's network, clock and randomness.
    pub fn sdk(&self, bootstrap: &str) -> strandline_client::ClientBuilder {
        let (clock, recorder) = (self.clock.clone(), self.recorder.clone());
        strandline_client::Client::builder()
            .bootstrap(bootstrap)
            .client_id(&*self.name)
            .connector(self.net.connector())
            .seed(self.seed.fork("sdk").value())
            .clock(Arc::new(move || clock.read_ms(recorder.now_us())))
    }
}

pub struct ClientHost {
    name: Arc<str>,
    software: ClientSoftware,
    seed: Seed,
    recorder: Recorder,
    clock: WallClock,
    now: Arc<Mutex<(u64, Life)>>,
}

impl std::fmt::Debug for ClientHost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ClientHost({})", self.name)
    }
}

impl ClientHost {
    pub(super) fn new(name: &str, software: ClientSoftware, seed: Seed, recorder: Recorder) -> ClientHost {
        let now = Arc::new(Mutex::new((1, Life::default())));
        ClientHost { name: Arc::from(name), software, seed, recorder, clock: WallClock::default(), now }
    }

    pub fn clock(&self) -> &WallClock {
        &self.clock
    }

    pub fn is_up(&self) -> bool {
        !self.now.lock().1.is_over()
    }

    pub(super) fn end_life(&mut self) {
        self.now.lock().1.end("killed");
    }

    pub(super) fn begin_life(&mut self) {
        let mut now = self.now.lock();
        now.0 += 1;
        now.1 = Life::default();
    }

    pub(super) fn software(&self) -> impl Fn() -> LocalBoxFuture<'static, turmoil::Result> + 'static {
        let (name, software, seed) = (self.name.clone(), self.software.clone(), self.seed);
        let (recorder, clock, now) = (self.recorder.clone(), self.clock.clone(), self.now.clone());
        move || {
            let (number, life) = now.lock().clone();
            let world = ClientWorld {
                name: name.clone(),
                life: number,
                seed: seed.nth(number),
                net: Net::new(name.clone(), life, recorder.trace.clone()),
                clock: clock.clone(),
                recorder: recorder.clone(),
            };
            let running = software(world);
            Box::pin(async move {
                running.await;
                Ok(())
            })
        }
    }
}
