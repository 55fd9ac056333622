//! What happens how often, by profile.

/// Weights of the steps; a step that cannot be taken is skipped.
#[derive(Debug)]
pub struct Profile {
    pub name: &'static str,
    pub steps: usize,
    /// Value of the topic's `flush`.
    pub flush: &'static str,
    pub unclean: bool,
    /// One message in so many is delivered out of order, or to another leader.
    pub disorder: u64,
    /// Broker 3 begins outside the ISR.
    pub joins: bool,
    pub weights: Weights,
}

#[derive(Debug)]
pub struct Weights {
    pub produce: u64,
    pub flush_start: u64,
    pub flush_done: u64,
    pub request: u64,
    pub deliver: u64,
    pub push: u64,
    pub duplicate: u64,
    pub lose: u64,
    pub disconnect: u64,
    pub image: u64,
    pub tick: u64,
    pub apply: u64,
    pub answer: u64,
    pub attend: u64,
    pub crash: u64,
    pub clean_stop: u64,
    pub fence: u64,
    pub elect: u64,
    pub min_isr: u64,
    pub damage: u64,
    pub delete_records: u64,
    pub set_replicas: u64,
    pub elect_unclean: u64,
    pub time: u64,
}

const BASE: Weights = Weights {
    produce: 40,
    flush_start: 32,
    flush_done: 40,
    request: 56,
    deliver: 120,
    push: 24,
    duplicate: 8,
    lose: 8,
    disconnect: 12,
    image: 56,
    tick: 24,
    apply: 32,
    answer: 20,
    attend: 48,
    crash: 0,
    clean_stop: 0,
    fence: 0,
    elect: 0,
    min_isr: 0,
    damage: 0,
    delete_records: 0,
    set_replicas: 0,
    elect_unclean: 0,
    time: 12,
};

const fn profile(name: &'static str, weights: Weights) -> Profile {
    Profile { name, steps: 350, flush: "ack", unclean: false, disorder: 3, joins: false, weights }
}

pub const PROFILES: &[Profile] = &[
    Profile {
        disorder: 1,
        ..profile(
            "messages",
            Weights { duplicate: 24, disconnect: 24, elect: 6, fence: 2, time: 16, lose: 4, ..BASE },
        )
    },
    profile("elections", Weights { fence: 2, elect: 3, min_isr: 1, time: 24, ..BASE }),
    profile("power loss", Weights { crash: 4, clean_stop: 1, fence: 1, elect: 1, ..BASE }),
    Profile {
        joins: true,
        ..profile(
            "isr changes",
            Weights {
                time: 48,
                tick: 56,
                apply: 24,
                answer: 12,
                fence: 2,
                crash: 1,
                elect: 5,
                min_isr: 1,
                ..BASE
            },
        )
    },
    profile("damage", Weights { damage: 3, crash: 4, elect: 1, fence: 1, attend: 64, ..BASE }),
    profile(
        "reassignment",
        Weights { set_replicas: 4, delete_records: 12, elect: 1, crash: 1, time: 16, attend: 64, ..BASE },
    ),
    Profile {
        flush: "os",
        ..profile("flush later", Weights { crash: 3, clean_stop: 2, fence: 1, elect: 1, time: 16, ..BASE })
    },
    Profile {
        unclean: true,
        ..profile("unclean", Weights { elect_unclean: 16, crash: 4, fence: 14, elect: 2, attend: 32, ..BASE })
    },
    profile(
        "everything",
        Weights {
            crash: 2,
            clean_stop: 1,
            fence: 1,
            elect: 2,
            min_isr: 1,
            damage: 1,
            delete_records: 6,
            set_replicas: 2,
            time: 24,
            ..BASE
        },
    ),
];
