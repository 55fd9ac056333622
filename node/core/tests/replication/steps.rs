//! What may happen next. One number says which step and with whom.

use crate::log::Record;
use crate::world::{BROKERS, Message, Position, TP, World, mix};
use strandline_core::partition::{
    Acks, Action, Answer, Damage, FetchDecision, FollowerAck, FollowerFetch, Outcome, ProduceRefusal,
};
use strandline_metadata::{Command, Election, Response};
use strandline_record::{BrokerId, Offset};

/// Independent draws from one number.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = mix(self.0);
        self.0 % n.max(1)
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn broker(&mut self) -> BrokerId {
        BrokerId(1 + self.below(BROKERS))
    }
}

impl World {
    pub fn step(&mut self, number: u64) {
        let mut dice = Dice(number);
        type Step = fn(&mut World, &mut Dice) -> Option<String>;
        let w = &self.profile.weights;
        let table: [(u64, Step); 24] = [
            (w.produce, World::produce),
            (w.flush_start, World::flush_start),
            (w.flush_done, World::flush_done),
            (w.request, World::request),
            (w.deliver, World::deliver),
            (w.push, World::push),
            (w.duplicate, World::duplicate),
            (w.lose, World::lose),
            (w.disconnect, World::disconnect),
            (w.image, World::image_moves),
            (w.tick, World::tick),
            (w.apply, World::apply_proposal),
            (w.answer, World::alter_answer),
            (w.attend, World::attend),
            (w.crash, World::crash),
            (w.clean_stop, World::clean_stop),
            (w.fence, World::fence),
            (w.elect, World::elect),
            (w.min_isr, World::min_isr),
            (w.damage, World::damage),
            (w.delete_records, World::delete_records),
            (w.set_replicas, World::set_replicas),
            (w.elect_unclean, World::elect_unclean),
            (w.time, World::time_passes),
        ];
        // A few tries, until one can be taken.
        for _ in 0..6 {
            let mut at = dice.below(table.iter().map(|(weight, _)| weight).sum());
            let chosen = table.iter().find(|(weight, _)| {
                let chosen = at < *weight;
                at = at.saturating_sub(*weight);
                chosen
            });
            let (_, step) = chosen.expect("below the sum of the weights");
            if let Some(line) = step(self, &mut dice) {
                self.trace.push(line);
                return;
            }
        }
    }

    fn produce(&mut self, dice: &mut Dice) -> Option<String> {
        let (id, now_ms) = (dice.broker(), self.now_ms);
        let node = self.nodes.get_mut(&id)?;
        let Position::Leader(leader) = &mut node.position else { return None };
        let acks = if dice.one_in(4) { Acks::Leader } else { Acks::All };
        match leader.check_produce(acks) {
            Ok(()) => {}
            Err(ProduceRefusal::NotEnoughReplicas { .. }) => {
                self.stats.not_enough_replicas += 1;
                return None;
            }
            Err(ProduceRefusal::Deposed(_)) => return None,
        }
        for _ in 0..=dice.below(2) {
            self.next_value += 1;
            node.log.append(Record { epoch: leader.epoch(), value: self.next_value });
        }
        let end = node.log.end();
        let effects = leader.appended(Offset(end), now_ms);
        let line = format!("{id} appends up to {end} in epoch {}", leader.epoch());
        self.carry_out(id, effects);
        Some(line)
    }

    fn flush_start(&mut self, dice: &mut Dice) -> Option<String> {
        let id = dice.broker();
        let node = self.nodes.get_mut(&id)?;
        let token = match &node.position {
            Position::Idle => return None,
            Position::Leader(leader) => leader.flush_token(),
            Position::Follower(follower) => follower.flush_token(),
        };
        (node.log.flushes.len() < 3).then(|| node.log.start_flush(token))?;
        Some(format!("{id} begins to flush up to {}", node.log.end()))
    }

    fn flush_done(&mut self, dice: &mut Dice) -> Option<String> {
        let id = dice.broker();
        let under_way = self.nodes[&id].log.flushes.len() as u64;
        (under_way > 0).then(|| self.flush_completes(id, dice.below(under_way) as usize))
    }

    /// Everything is flushed, now.
    pub fn flush_all(&mut self, id: BrokerId) {
        let node = self.node(id);
        let token = match &node.position {
            Position::Idle => return,
            Position::Leader(leader) => leader.flush_token(),
            Position::Follower(follower) => follower.flush_token(),
        };
        node.log.start_flush(token);
        while !self.nodes[&id].log.flushes.is_empty() {
            self.flush_completes(id, 0);
        }
    }

    fn flush_completes(&mut self, id: BrokerId, index: usize) -> String {
        let node = self.nodes.get_mut(&id).expect("a broker");
        let (flush, late) = node.log.finish_flush(index);
        self.stats.late_flushes += u64::from(late);
        let end = Offset(flush.end());
        // The shell's own record of the flushed end, for the next role.
        let truncations = match &node.position {
            Position::Follower(follower) => follower.truncations(),
            _ => node.truncations,
        };
        if flush.token.truncations == truncations {
            node.flushed = node.flushed.max(flush.end());
        }
        match &mut node.position {
            Position::Idle => {}
            Position::Leader(leader) => {
                let effects = leader.flushed(flush.token, end);
                self.carry_out(id, effects);
            }
            Position::Follower(follower) => {
                let ack = follower.flushed(flush.token, end);
                let (to, leader_epoch) = (follower.leader(), follower.epoch());
                if let (Some(flushed_end), Some(broker_epoch)) = (ack, node.registered) {
                    self.stats.acks += 1;
                    let number = follower.outstanding().expect("an acknowledgement between requests");
                    let ack = FollowerAck { number, broker: id, broker_epoch, leader_epoch, flushed_end };
                    self.net.push(Message::Ack { to, ack });
                }
            }
        }
        format!("{id} has flushed up to {end}")
    }

    fn request(&mut self, dice: &mut Dice) -> Option<String> {
        let id = dice.broker();
        self.request_of(id)
    }

    pub fn request_of(&mut self, id: BrokerId) -> Option<String> {
        let Position::Follower(follower) = &mut self.nodes.get_mut(&id)?.position else { return None };
        let request = follower.request()?;
        self.net.push(Message::Fetch { from: id, to: follower.leader(), request });
        Some(format!("{id} asks {}: {request:?}", follower.leader()))
    }

    fn deliver(&mut self, dice: &mut Dice) -> Option<String> {
        if self.net.is_empty() {
            return None;
        }
        // Mostly the oldest: in order, as streams are.
        let any = dice.below(self.net.len() as u64) as usize;
        let index = if dice.one_in(self.profile.disorder) { any } else { 0 };
        let at_most = 1 + dice.below(4) as usize;
        let mut message = self.net.remove(index);
        if let Message::Fetch { to, .. } | Message::Ack { to, .. } = &mut message
            && !matches!(self.nodes[to].position, Position::Leader(_))
            && dice.one_in(self.profile.disorder)
        {
            // As if it had been under way for long: whoever leads by then.
            let leads = |id: &BrokerId| matches!(self.nodes[id].position, Position::Leader(_));
            *to = (1..=BROKERS).map(BrokerId).find(leads).unwrap_or(*to);
        }
        let line = format!("delivered: {message:?}");
        self.deliver_message(message, at_most);
        Some(line)
    }

    pub fn deliver_message(&mut self, message: Message, at_most: usize) {
        let now_ms = self.now_ms;
        match message {
            Message::Fetch { from, to, request } => {
                let Some(node) = self.nodes.get_mut(&to) else { return };
                let Position::Leader(leader) = &mut node.position else { return };
                let fetch = FollowerFetch {
                    number: request.number,
                    broker: from,
                    broker_epoch: request.broker_epoch,
                    leader_epoch: request.leader_epoch,
                    next_offset: request.next_offset,
                    last_epoch: request.last_epoch,
                    flushed_end: request.flushed_end,
                };
                let log = &node.log;
                let (decision, effects) =
                    leader.follower_fetch(&fetch, |epoch| log.end_of_epoch(epoch), now_ms);
                let outcome = match decision {
                    FetchDecision::Send { from: position } => {
                        node.waiting.insert(from, (request.number, position));
                        None
                    }
                    FetchDecision::Diverging { epoch, end } => Some(Outcome::Diverging { epoch, end }),
                    FetchDecision::BelowLogStart { log_start } => Some(Outcome::BelowLogStart { log_start }),
                    FetchDecision::Refused(_) => Some(Outcome::Refused),
                };
                if let Some(outcome) = outcome {
                    let answer = Answer { number: request.number, leader_epoch: leader.epoch(), outcome };
                    self.net.push(Message::Answer { to: from, answer, records: vec![] });
                }
                self.carry_out(to, effects);
                self.push_to(to, from, at_most);
            }
            Message::Ack { to, ack } => {
                let Some(node) = self.nodes.get_mut(&to) else { return };
                let Position::Leader(leader) = &mut node.position else { return };
                let (_, effects) = leader.follower_ack(&ack, now_ms);
                self.carry_out(to, effects);
            }
            Message::Answer { to, answer, records } => self.answered(to, answer, records),
        }
    }

    fn answered(&mut self, id: BrokerId, answer: Answer, records: Vec<Record>) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let Position::Follower(follower) = &mut node.position else { return };
        let log = &node.log;
        let own_end = |epoch| log.end_of_epoch(epoch).map_or(Offset(log.start), |(_, end)| end);
        let learned = match follower.answer(&answer, Offset(log.start), own_end) {
            Action::Ignore => {
                self.stats.ignored += 1;
                None
            }
            Action::Retry => None,
            Action::Learned(learned) => Some(learned),
            Action::Append { base } => {
                assert_eq!(base.get(), node.log.end(), "data is contiguous");
                records.into_iter().for_each(|record| node.log.append(record));
                Some(follower.appended(Offset(node.log.end()), node.log.last_epoch()))
            }
            Action::Truncate(truncation) => {
                self.stats.truncations += 1;
                node.log.truncate(truncation.to.get());
                node.flushed = node.flushed.min(truncation.to.get());
                follower.truncated(truncation.to, node.log.last_epoch());
                None
            }
            Action::Reset { start } => {
                self.stats.resets += 1;
                node.log.reset(start.get());
                node.flushed = node.flushed.min(start.get());
                follower.truncated(start, None);
                None
            }
        };
        if let Some(log_start) = learned.and_then(|learned| learned.log_start)
            && log_start.get() > node.log.start
        {
            node.log.delete_below(log_start.get());
        }
    }

    /// A leader answers a waiting request: with data if there is some, else with its marks.
    fn push(&mut self, dice: &mut Dice) -> Option<String> {
        let (id, to) = (dice.broker(), dice.broker());
        self.push_to(id, to, 1 + dice.below(4) as usize).then(|| format!("{id} pushes to {to}"))
    }

    pub fn push_to(&mut self, id: BrokerId, to: BrokerId, at_most: usize) -> bool {
        let Some(node) = self.nodes.get_mut(&id) else { return false };
        let Some(leader) = node.leader() else { return false };
        let Some(&(number, from)) = node.waiting.get(&to) else { return false };
        let (high_watermark, log_start) = (leader.high_watermark(), leader.log_start());
        let leader_epoch = leader.epoch();
        let (outcome, records) = if from < log_start {
            (Outcome::BelowLogStart { log_start }, vec![])
        } else if from.get() < node.log.end() {
            (Outcome::Data { base: from, high_watermark, log_start }, node.log.from(from.get(), at_most))
        } else {
            (Outcome::Marks { high_watermark, log_start }, vec![])
        };
        if !matches!(outcome, Outcome::Marks { .. }) {
            node.waiting.remove(&to);
        }
        let answer = Answer { number, leader_epoch, outcome };
        self.net.push(Message::Answer { to, answer, records });
        true
    }

    fn duplicate(&mut self, dice: &mut Dice) -> Option<String> {
        if dice.one_in(3) && !self.proposals.is_empty() {
            let index = dice.below(self.proposals.len() as u64) as usize;
            self.proposals.push(self.proposals[index].clone());
            return Some(format!("twice: {:?}", self.proposals[index]));
        }
        if self.net.is_empty() {
            return None;
        }
        let index = dice.below(self.net.len() as u64) as usize;
        self.net.push(self.net[index].clone());
        Some(format!("twice: {:?}", self.net[index]))
    }

    fn lose(&mut self, dice: &mut Dice) -> Option<String> {
        if dice.one_in(3) && !self.proposals.is_empty() {
            let index = dice.below(self.proposals.len() as u64) as usize;
            let lost = self.proposals.remove(index);
            return Some(format!("lost: {lost:?}"));
        }
        if self.net.is_empty() {
            return None;
        }
        let lost = self.net.remove(dice.below(self.net.len() as u64) as usize);
        Some(format!("lost: {lost:?}"))
    }

    fn disconnect(&mut self, dice: &mut Dice) -> Option<String> {
        let id = dice.broker();
        let Position::Follower(follower) = &mut self.nodes.get_mut(&id)?.position else { return None };
        follower.disconnected();
        Some(format!("{id} has lost its stream"))
    }

    fn image_moves(&mut self, dice: &mut Dice) -> Option<String> {
        let id = dice.broker();
        let (at, last) = (self.nodes[&id].image, self.history.len() - 1);
        if !self.nodes[&id].up || at == last {
            return None;
        }
        let to = if dice.one_in(2) { last } else { at + 1 + dice.below((last - at) as u64) as usize };
        let line = format!("{id} sees image {to} of {last}: {:?}", self.history[to].partition(TP));
        self.see_image(id, to);
        Some(line)
    }

    fn tick(&mut self, dice: &mut Dice) -> Option<String> {
        let id = dice.broker();
        self.tick_of(id)
    }

    pub fn tick_of(&mut self, id: BrokerId) -> Option<String> {
        let now_ms = self.now_ms;
        let Position::Leader(leader) = &mut self.nodes.get_mut(&id)?.position else { return None };
        let effects = leader.tick(now_ms);
        let line = (!effects.is_empty()).then(|| format!("{id} ticks: {effects:?}"));
        self.carry_out(id, effects);
        line
    }

    fn time_passes(&mut self, dice: &mut Dice) -> Option<String> {
        let ms = 1 + dice.below(400);
        self.now_ms += ms;
        Some(format!("{ms} ms pass"))
    }

    fn apply_proposal(&mut self, dice: &mut Dice) -> Option<String> {
        if self.proposals.is_empty() {
            return None;
        }
        let index = dice.below(self.proposals.len() as u64) as usize;
        let command = self.proposals.remove(index);
        let answered = !dice.one_in(3);
        Some(self.agree_on(command, answered))
    }

    pub fn agree_on(&mut self, command: Command, answered: bool) -> String {
        let response = self.apply(&command);
        let line = format!("agreed: {command:?} -> {response:?}");
        if let (Command::AlterPartition { requester, .. }, true) = (&command, answered) {
            let answer = match response {
                Response::Partition(partition) => Ok(partition),
                Response::Rejected(rejection) => Err(rejection),
                other => panic!("not an answer: {other:?}"),
            };
            self.answers.push((*requester, answer));
        }
        line
    }

    fn alter_answer(&mut self, dice: &mut Dice) -> Option<String> {
        if self.answers.is_empty() {
            return None;
        }
        let index = dice.below(self.answers.len() as u64) as usize;
        Some(self.answer_arrives(index))
    }

    pub fn answer_arrives(&mut self, index: usize) -> String {
        let (to, answer) = self.answers.remove(index);
        let now_ms = self.now_ms;
        if let Position::Leader(leader) = &mut self.node(to).position {
            let effects = leader.alter_answer(answer.as_ref(), now_ms);
            self.carry_out(to, effects);
        }
        format!("answer to {to}: {answer:?}")
    }

    /// A broker, or the controller for it, does what its state asks for: start, register, report, unfence.
    fn attend(&mut self, dice: &mut Dice) -> Option<String> {
        let id = dice.broker();
        let found = (self.profile.weights.damage > 0 && dice.one_in(4)).then(|| dice.below(64));
        let answer_lost = dice.one_in(8);
        self.attend_to(id, found, answer_lost)
    }

    pub fn attend_to(&mut self, id: BrokerId, found: Option<u64>, answer_lost: bool) -> Option<String> {
        let agreed = self.agreed().broker(id).expect("registered at the beginning").clone();
        let image_epoch = self.image(id).broker(id).map(|broker| broker.epoch);
        let partition = self.image(id).partition(TP).cloned();
        let node = self.nodes.get_mut(&id)?;
        if !node.up {
            node.up = true;
            if let Some(found) = found.filter(|_| node.log.durable > node.log.start) {
                // Recovery finds damage.
                let from = node.log.start + (found as i64) % (node.log.durable - node.log.start);
                node.cut(from);
                node.damage = Some(Damage { found_in: None });
                self.stats.damages += 1;
                self.damage_happened = true;
                return Some(format!("{id} starts and finds damage from {from}"));
            }
            return Some(format!("{id} starts"));
        }
        if node.registered != Some(agreed.epoch) {
            let clean_epoch = node.clean_epoch.take();
            self.register(id, clean_epoch);
            if answer_lost {
                self.node(id).registered = None;
            }
            self.take_role(id);
            return Some(format!("{id} registers (clean: {clean_epoch:?}), answer lost: {answer_lost}"));
        }
        let epoch = agreed.epoch;
        if let (Some(damage), Some(partition)) = (node.damage, partition)
            && !strandline_core::partition::damage_reported(id, epoch, damage, &partition)
        {
            let from = Offset(node.log.end());
            self.proposals.push(Command::ReplicaDamaged { id, epoch, tp: TP, from });
            return Some(format!("{id} reports its damage"));
        }
        if agreed.fenced && image_epoch == Some(epoch) {
            self.proposals.push(Command::UnfenceBroker { id, epoch });
            return Some(format!("{id} wants to be unfenced"));
        }
        None
    }

    fn crash(&mut self, dice: &mut Dice) -> Option<String> {
        let id = dice.broker();
        let node = self.nodes.get_mut(&id)?;
        if !node.up {
            return None;
        }
        let (durable, end) = (node.log.durable, node.log.end());
        let keep = durable + dice.below((end - durable + 1) as u64) as i64;
        self.stats.lost_tails += u64::from(keep < end);
        match node.log.old.take() {
            Some(old) if dice.one_in(2) => node.log.back_to(old),
            _ => {
                node.log.truncate(keep);
                node.log.durable = keep;
            }
        }
        node.stop();
        node.clean_epoch = None;
        self.forget_answers_to(id);
        Some(format!("{id} loses power: keeps up to {keep} of {end}, {durable} were on disk"))
    }

    fn clean_stop(&mut self, dice: &mut Dice) -> Option<String> {
        let id = dice.broker();
        let node = self.nodes.get_mut(&id)?;
        if !node.up || node.damage.is_some() {
            return None;
        }
        node.log.durable = node.log.end();
        node.log.old = None;
        let registered = node.registered;
        node.stop();
        node.clean_epoch = registered;
        self.forget_answers_to(id);
        Some(format!("{id} stops cleanly at {}", self.nodes[&id].log.end()))
    }

    /// Answers die with the connections of a process; what it has sent may still arrive.
    fn forget_answers_to(&mut self, id: BrokerId) {
        self.net.retain(|message| !matches!(message, Message::Answer { to, .. } if *to == id));
        self.answers.retain(|(to, _)| *to != id);
    }

    fn fence(&mut self, dice: &mut Dice) -> Option<String> {
        let id = dice.broker();
        let broker = self.agreed().broker(id)?.clone();
        let command = Command::FenceBroker { id, epoch: broker.epoch };
        if dice.one_in(4) {
            self.proposals.push(command);
            return Some(format!("{id} will be fenced"));
        }
        (!broker.fenced).then(|| self.agree_on(command, false))
    }

    fn elect(&mut self, dice: &mut Dice) -> Option<String> {
        let to = dice.broker();
        (self.partition().leader != Some(to))
            .then(|| self.agree_on(Command::ElectLeader { tp: TP, kind: Election::To(to) }, false))
    }

    fn elect_unclean(&mut self, _: &mut Dice) -> Option<String> {
        self.partition()
            .leader
            .is_none()
            .then(|| self.agree_on(Command::ElectLeader { tp: TP, kind: Election::Unclean }, false))
    }

    fn min_isr(&mut self, dice: &mut Dice) -> Option<String> {
        let value = (1 + dice.below(2)).to_string();
        let set = [("min.insync.replicas".into(), value.as_str().into())].into();
        let command = Command::AlterTopicConfigs { topic: TP.topic, set, unset: Default::default() };
        Some(self.agree_on(command, false))
    }

    fn damage(&mut self, dice: &mut Dice) -> Option<String> {
        let (id, at) = (dice.broker(), dice.below(64));
        let leader_epoch = self.image(id).partition(TP)?.leader_epoch;
        let node = self.nodes.get_mut(&id)?;
        if !node.up || node.damage.is_some() || node.log.durable == node.log.start {
            return None;
        }
        let from = node.log.start + (at as i64) % (node.log.durable - node.log.start);
        node.leave_role();
        node.cut(from);
        // Before the first image nothing says in which epoch: as at recovery.
        let found_in = node.registered.is_some().then_some(leader_epoch);
        node.damage = Some(Damage { found_in });
        self.stats.damages += 1;
        self.damage_happened = true;
        Some(format!("{id} finds damage from {from}"))
    }

    fn delete_records(&mut self, dice: &mut Dice) -> Option<String> {
        let id = dice.broker();
        let node = self.nodes.get_mut(&id)?;
        if let Position::Follower(follower) = &node.position {
            // Its own retention.
            let range = follower.high_watermark().get() - node.log.start;
            if range <= 0 || self.profile.unclean {
                return None;
            }
            let to = node.log.start + 1 + dice.below(range as u64) as i64;
            node.log.delete_below(to);
            self.declared_start = self.declared_start.max(to);
            self.stats.deletions += 1;
            return Some(format!("follower {id} deletes below {to}"));
        }
        let Position::Leader(leader) = &mut node.position else { return None };
        if leader.deposed().is_some() || leader.high_watermark() == leader.log_start() {
            return None;
        }
        let range = leader.high_watermark().get() - leader.log_start().get();
        let to = leader.log_start().get() + 1 + dice.below(range as u64) as i64;
        leader.log_start_moved(Offset(to));
        node.log.delete_below(to);
        self.declared_start = self.declared_start.max(to);
        self.stats.deletions += 1;
        Some(format!("{id} deletes below {to}"))
    }

    /// Adds or removes one replica, at the front, in the middle or at the end.
    fn set_replicas(&mut self, dice: &mut Dice) -> Option<String> {
        let id = dice.broker();
        let partition = self.partition();
        let mut replicas = partition.replicas.clone();
        match replicas.iter().position(|&replica| replica == id) {
            Some(at) if replicas.len() > 2 => {
                replicas.remove(at);
            }
            Some(_) => return None,
            None => replicas.insert(dice.below(replicas.len() as u64 + 1) as usize, id),
        }
        let partition_epoch = partition.partition_epoch;
        Some(self.agree_on(Command::SetReplicas { tp: TP, partition_epoch, replicas }, false))
    }
}
