//! The end of a failed run, told by the events that matter to what was violated: those that name the violated attempt,
//! partition, group or node first, and the faults always.

use super::words::{self, Subject};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use strandline_sim::history::{Attempt, Event, Session, Tp, What};
use strandline_sim::observe::{ImageView, PartitionView};
use strandline_sim::watch::Watcher;
use strandline_sim::world::World;

use super::outcome::Size;

/// Newest client events and changes of the cluster kept.
const EVENTS: usize = 100_000;
const CHANGES: usize = 10_000;
/// Lines of each sort in a story.
const ATTEMPT_LINES: usize = 12;
const SUBJECT_LINES: usize = 16;
const FAULT_LINES: usize = 24;
const CHANGE_LINES: usize = 12;
const NOTE_LINES: usize = 12;

/// Remembers the newest of what happened.
#[derive(Debug, Default)]
pub struct Story {
    now_us: u64,
    events: VecDeque<Event>,
    faults: VecDeque<Line>,
    /// Of nodes, Raft and partitions.
    changes: VecDeque<Line>,
    fault_count: usize,
    nodes: usize,
    clients: usize,
    steps: u64,
    running: Vec<u64>,
    raft: (u64, u64),
    image: Option<Arc<ImageView>>,
    /// Whose sessions these are.
    names: BTreeMap<Session, Arc<str>>,
    nameless: BTreeSet<Session>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    at_us: u64,
    subjects: Vec<Subject>,
    text: String,
}

fn push<T>(queue: &mut VecDeque<T>, value: T, at_most: usize) {
    if queue.len() == at_most {
        queue.pop_front();
    }
    queue.push_back(value);
}

impl Watcher for Story {
    fn step(&mut self, world: &World) {
        self.now_us = world.now_us();
        // Hosts come and go rarely, and counting them costs something.
        if self.steps.is_multiple_of(1_000) {
            self.nodes = self.nodes.max(world.node_ids().len());
            self.clients = self.clients.max(world.client_names().len());
        }
        self.steps += 1;
        for session in std::mem::take(&mut self.nameless) {
            if let Some(name) = world.recorder().client_of(session) {
                self.names.insert(session, name);
            }
        }
        let views = world.views();
        if !self.running.iter().eq(views.keys()) {
            let before = std::mem::replace(&mut self.running, views.keys().copied().collect());
            for id in views.keys().filter(|id| !before.contains(id)) {
                self.change(vec![Subject::Node(*id)], format!("node-{id} runs"));
            }
            for id in before.into_iter().filter(|id| !views.contains_key(id)) {
                let state = world.node(id).state();
                self.change(vec![Subject::Node(id)], format!("node-{id} runs no more: {state:?}"));
            }
        }
        for (id, view) in views {
            if view.raft.leader && view.raft.term > self.raft.0 {
                self.raft = (view.raft.term, *id);
                let text = format!("node-{id} leads Raft in term {}", view.raft.term);
                self.change(vec![Subject::Node(*id)], text);
            }
        }
        let newest = views.values().map(|view| &view.image).max_by_key(|image| image.index);
        if let Some(image) = newest
            && self.image.as_ref().is_none_or(|seen| seen.index < image.index)
        {
            self.image(image.clone());
        }
    }

    fn event(&mut self, event: &Event) {
        if let Some(session) = event.what.session()
            && !self.names.contains_key(&session)
        {
            self.nameless.insert(session);
        }
        push(&mut self.events, event.clone(), EVENTS);
    }

    fn fault(&mut self, at_us: u64, kind: &str, what: &str, until_us: Option<u64>) {
        self.fault_count += 1;
        let until = until_us.map_or(String::new(), |at| format!(", until {}", words::seconds(at)));
        let text = format!("FAULT {kind}: {what}{until}");
        push(&mut self.faults, Line { at_us, subjects: Vec::new(), text }, CHANGES);
    }
}

impl Story {
    pub fn size(&self) -> Size {
        Size { nodes: self.nodes, clients: self.clients, faults: self.fault_count }
    }

    fn change(&mut self, subjects: Vec<Subject>, text: String) {
        push(&mut self.changes, Line { at_us: self.now_us, subjects, text }, CHANGES);
    }

    fn image(&mut self, image: Arc<ImageView>) {
        let before = self.image.take().unwrap_or_default();
        for (tp, now) in &image.partitions {
            let then = before.partitions.get(tp);
            if !then.is_some_and(|then| Arc::ptr_eq(then, now)) {
                let text = partition_change(tp, then.map(|then| &**then), now);
                self.change(vec![Subject::Partition(tp.clone())], text);
            }
        }
        for (name, now) in &image.groups {
            let then = before.groups.get(name);
            if then.is_none_or(|then| (then.generation, then.assigned) != (now.generation, now.assigned)) {
                let members = now.members.len();
                let assigned = if now.assigned { "assigned" } else { "not assigned yet" };
                let text =
                    format!("group {name}: generation {}, {members} members, {assigned}", now.generation);
                self.change(vec![Subject::Group(name.clone())], text);
            }
        }
        self.image = Some(image);
    }

    /// The story of a run that ended with `what`. `notes`: the trace's newest.
    pub fn tell(&self, what: &str, notes: &[String]) -> Vec<String> {
        let wanted = self.subjects_of(what);
        let partitions = self.partitions_of_attempts();
        let subjects = |event: &Event| -> Vec<Subject> {
            let mut subjects = words::subjects(&event.what);
            if let What::Sent { attempt, .. } = event.what
                && let Some(tp) = partitions.get(&attempt)
            {
                subjects.push(Subject::Partition((*tp).clone()));
            }
            subjects
        };
        let line = |event: &Event| {
            let who = event.what.session().and_then(|session| self.names.get(&session));
            let text = words::describe(who.map(|name| &**name), &event.what);
            Line { at_us: event.at_us, subjects: Vec::new(), text }
        };
        let names = |event: &&Event, of: &dyn Fn(&Subject) -> bool| {
            subjects(event).iter().any(|subject| of(subject) && wanted.contains(subject))
        };
        let exact = |event: &&Event| names(event, &Subject::is_exact);
        let mut lines: Vec<Line> = Vec::new();
        lines.extend(self.events.iter().rev().filter(exact).take(ATTEMPT_LINES).map(line));
        let broad = |event: &&Event| !exact(event) && names(event, &|subject| !subject.is_exact());
        let mut told: Vec<Line> =
            self.events.iter().rev().filter(broad).take(SUBJECT_LINES).map(line).collect();
        if lines.is_empty() && told.is_empty() {
            told = self.events.iter().rev().take(SUBJECT_LINES).map(line).collect();
        }
        lines.extend(told);
        lines.extend(self.faults.iter().rev().take(FAULT_LINES).cloned());
        let of_wanted = |line: &&Line| line.subjects.iter().any(|subject| wanted.contains(subject));
        let about: Vec<&Line> = self.changes.iter().rev().filter(of_wanted).take(CHANGE_LINES).collect();
        let rest =
            self.changes.iter().rev().filter(|line| !of_wanted(line)).take(CHANGE_LINES - about.len() / 2);
        lines.extend(about.iter().copied().chain(rest).cloned());
        lines.sort_by_key(|line| line.at_us);
        let mut story: Vec<String> =
            lines.iter().map(|line| format!("{} {}", words::seconds(line.at_us), line.text)).collect();
        let others: Vec<&String> = notes.iter().filter(|note| !words::is_event_or_fault(note)).collect();
        if !others.is_empty() {
            story.push("last notes of the trace:".to_owned());
            story.extend(others.iter().rev().take(NOTE_LINES).rev().map(|note| (*note).clone()));
        }
        story
    }

    /// What the violation's text names.
    fn subjects_of(&self, what: &str) -> BTreeSet<Subject> {
        let mut wanted = words::numbered_subjects(what);
        let known = self
            .events
            .iter()
            .flat_map(|event| words::subjects(&event.what))
            .chain(self.changes.iter().flat_map(|line| line.subjects.iter().cloned()));
        // Each is looked for in the text once.
        let known: BTreeSet<Subject> = known.filter(|subject| !subject.is_exact()).collect();
        wanted.extend(known.into_iter().filter(|subject| words::names(what, subject)));
        wanted
    }

    fn partitions_of_attempts(&self) -> BTreeMap<Attempt, &Tp> {
        let sends = self.events.iter().filter_map(|event| match &event.what {
            What::Send { attempt, tp, .. } => Some((*attempt, tp)),
            _ => None,
        });
        sends.collect()
    }
}

fn partition_change(tp: &Tp, then: Option<&PartitionView>, now: &PartitionView) -> String {
    let leader = now.leader.map_or("no leader".to_owned(), |id| format!("leader {id}"));
    let mut text = format!("{tp}: {leader}, epoch {}, ISR {:?}", now.leader_epoch, now.isr);
    if !now.elr.is_empty() {
        text += &format!(", ELR {:?}", now.elr);
    }
    match then {
        None => text += &format!(", replicas {:?} (new)", now.replicas),
        Some(then) if then.replicas != now.replicas => text += &format!(", replicas {:?}", now.replicas),
        _ => {}
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use strandline_sim::history::{Acks, Outcome};

    fn send(at_us: u64, attempt: u64, partition: i32) -> Event {
        let what = What::Send {
            session: Session(1),
            attempt: Attempt(attempt),
            tp: Tp::new("t", partition),
            acks: Acks::All,
            idempotent: true,
        };
        Event { at_us, what }
    }

    fn sent(at_us: u64, attempt: u64) -> Event {
        let outcome = Outcome::Acknowledged(Some(attempt as i64));
        Event { at_us, what: What::Sent { session: Session(1), attempt: Attempt(attempt), outcome } }
    }

    /// A thousand attempts on five partitions, in turn; a fault near the start.
    fn busy() -> Story {
        let mut story = Story::default();
        story.fault(10, "crash", "node-2", Some(1_500_000));
        for n in 0..1_000 {
            story.event(&send(n * 1_000, n, (n % 5) as i32));
            story.event(&sent(n * 1_000 + 500, n));
        }
        story
    }

    #[test]
    fn a_story_tells_of_the_violated_attempt_first_then_of_its_partition_and_always_of_faults() {
        let story = busy().tell("attempt 23 was acknowledged in t-3 and is gone", &[]);
        assert!(story[0].ends_with("FAULT crash: node-2, until    1.500000"), "{story:#?}");
        assert!(story[1].contains("attempt 23 to t-3"), "{story:#?}");
        assert!(story[2].contains("attempt 23 acknowledged"), "{story:#?}");
        assert_eq!(story.len(), 3 + SUBJECT_LINES);
        // 998 is the last one for t-3, and what became of it belongs to the partition as well.
        assert!(story.last().unwrap().contains("attempt 998 acknowledged"), "{story:#?}");
        let of_others = story.iter().filter(|line| line.contains(" to t-") && !line.contains(" to t-3"));
        assert_eq!(of_others.count(), 0, "{story:#?}");
    }

    #[test]
    fn a_violation_that_names_nothing_known_gets_the_last_events() {
        let story = busy().tell("the cluster did not converge", &[]);
        assert_eq!(story.len(), 1 + SUBJECT_LINES);
        assert!(story.last().unwrap().contains("attempt 999 acknowledged"));
    }

    #[test]
    fn notes_of_the_trace_that_are_not_events_are_added() {
        let notes = [
            "   1.000000 producer-0 Send { session: Session(1), attempt: Attempt(5) }".to_owned(),
            "   1.000000 node-1     is dead".to_owned(),
        ];
        let story = busy().tell("t-9", &notes);
        assert_eq!(story.last().unwrap(), &notes[1]);
        assert!(!story.contains(&notes[0]));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut story = Story::default();
        for n in 0..EVENTS as u64 + 10 {
            story.event(&send(n, n, 0));
        }
        assert_eq!((story.events.len(), story.events[0].at_us), (EVENTS, 10));
    }

    #[test]
    fn a_partition_is_described_with_what_changed() {
        let then = PartitionView {
            replicas: vec![1, 2, 3],
            leader: Some(1),
            leader_epoch: 4,
            partition_epoch: 9,
            isr: [1, 2, 3].into(),
            elr: BTreeSet::new(),
            unclean_epoch: 0,
        };
        let now =
            PartitionView { leader: None, leader_epoch: 5, isr: [].into(), elr: [1].into(), ..then.clone() };
        let tp = Tp::new("t", 3);
        let text = partition_change(&tp, Some(&then), &now);
        assert_eq!(text, "t-3: no leader, epoch 5, ISR {}, ELR {1}");
        assert!(partition_change(&tp, None, &then).ends_with("replicas [1, 2, 3] (new)"));
    }
}
