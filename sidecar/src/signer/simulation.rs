//! Two sidecars with one key beside one chain and one store of leases, under a scheduler that is all chance and no threads.
//!
//! The guard is the real one; what surrounds it is modelled step by step, with room for a pause, a partition, a jump of a
//! clock or an end of the process between any two steps, and with messages that come late, twice or never. A seed is a
//! schedule: `SEED=n cargo test … signer::simulation` plays one again, `SEEDS=n` (or `make simulate SEEDS=n`) so many.
//!
//! # What has to hold
//! 1. No signature leaves a process while another one holds the lease, and holders follow each other: once another one has
//!    signed, nobody signs again under the epoch before.
//! 2. When an extrinsic is signed, none of another process can enter the chain any more. So the chain never accepts
//!    extrinsics of two overlapping epochs.
//! 3. Some time after the faults have ended, messages are signed and extrinsics are accepted again.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::clock::Moment;
use super::guard::{Answer, Guard, LeaseRecord, NotHeld, Permit, Request, Rules, Ticket};

/// Milliseconds of the world's own time, which nobody in it can read.
type Time = u64;

const BLOCK: Time = 3_000;
/// Blocks in which an extrinsic may enter the chain.
const MORTALITY: u64 = 16;
const FINALITY_LAG: u64 = 2;
/// Faults happen until then.
const TROUBLE: Time = 240_000;
/// Then everything is well for so long: two leases, the mortality of what is under way, and some blocks.
const CALM: Time = 30_000 + (MORTALITY + FINALITY_LAG) * BLOCK + 45_000;

/// What is done wrong on purpose, to see that it is noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mistake {
    None,
    /// The holder counts its lease from the answer.
    CountsFromTheAnswer,
    /// The holder uses its lease until the very end.
    NoMargin,
    /// Time is the wall clock.
    TrustsTheWallClock,
    /// A signature is used without a second look.
    NoSecondLook,
    /// Extrinsics of the holder before are not waited for.
    NoFence,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A chance for the task that keeps the lease.
    Keeper {
        node: usize,
        life: u32,
    },
    /// No answer came in time.
    Deadline {
        node: usize,
        life: u32,
        request: u64,
    },
    StoreAsked {
        node: usize,
        life: u32,
        request: u64,
    },
    StoreAnswered {
        node: usize,
        life: u32,
        request: u64,
    },
    /// The next step of a signature.
    Signing {
        node: usize,
        life: u32,
        job: u64,
    },
    /// Time for another signature.
    Wish {
        node: usize,
        life: u32,
    },
    /// Asks the chain for its head.
    Look {
        node: usize,
        life: u32,
    },
    Head {
        node: usize,
        life: u32,
        asked: (Duration, Duration),
        block: u64,
    },
    Submitted {
        extrinsic: usize,
    },
    Block,
    Fault,
}

/// How far a signature is.
#[derive(Debug, Clone)]
enum Step {
    /// Wants leave; the block it dies at, if it is an extrinsic, and its nonce.
    Wanted,
    Permitted(Permit),
    /// Made, and in memory only.
    Made(Permit),
    /// Left the signer.
    Released,
    /// May be sent.
    Sending,
}

#[derive(Debug, Clone)]
struct Job {
    extrinsic: Option<(u64, u64)>,
    step: Step,
    tries: u32,
}

struct Node {
    guard: Guard,
    life: u32,
    /// Differs from the world's time by this, and by a rate.
    boot_offset: Time,
    rate_ppm: i64,
    wall_offset: i64,
    paused_until: Time,
    partitioned_until: Time,
    stopping_since: Option<Time>,
    head: u64,
    nonce: u64,
    jobs: BTreeMap<u64, Job>,
}

#[derive(Debug, Clone)]
struct Extrinsic {
    signer: String,
    nonce: u64,
    birth: u64,
    death: u64,
    included: Option<u64>,
    arrived: bool,
}

struct World {
    rng: StdRng,
    mistake: Mistake,
    now: Time,
    queue: BinaryHeap<Reverse<(Time, u64, Event)>>,
    sequence: u64,
    lease: Option<LeaseRecord>,
    versions: u64,
    /// When somebody removed the lease last.
    removed: Option<Time>,
    requests: BTreeMap<u64, (Ticket, Option<Answer>, bool)>,
    block: u64,
    nonce: u64,
    nodes: Vec<Node>,
    extrinsics: Vec<Extrinsic>,
    /// Tenures in the order in which they signed first.
    tenures: Vec<(String, u64)>,
    messages_in_calm: u32,
    accepted_in_calm: u32,
    accepted: u32,
    takeovers: u32,
    trace: Vec<String>,
}

impl World {
    fn new(seed: u64, mistake: Mistake) -> Self {
        let mut world = Self {
            rng: StdRng::seed_from_u64(seed),
            mistake,
            now: 0,
            queue: BinaryHeap::new(),
            sequence: 0,
            lease: None,
            versions: 0,
            removed: None,
            requests: BTreeMap::new(),
            block: 100,
            nonce: 0,
            nodes: Vec::new(),
            extrinsics: Vec::new(),
            tenures: Vec::new(),
            messages_in_calm: 0,
            accepted_in_calm: 0,
            accepted: 0,
            takeovers: 0,
            trace: Vec::new(),
        };
        for node in 0..2 {
            let boot_offset = world.rng.random_range(1_000_000..9_000_000);
            // Far worse than any quartz; what the margin has to cover.
            let rate_ppm = world.rng.random_range(-100_000..100_000);
            let wall_offset = world.rng.random_range(-5_000_000..5_000_000);
            world.nodes.push(Node {
                guard: Guard::new(world.rules(), String::new()),
                life: 0,
                boot_offset,
                rate_ppm,
                wall_offset,
                paused_until: 0,
                partitioned_until: 0,
                stopping_since: None,
                head: 100,
                nonce: 0,
                jobs: BTreeMap::new(),
            });
            world.start(node);
        }
        world.after(BLOCK, Event::Block);
        world.after(1_000, Event::Fault);
        world
    }

    fn rules(&self) -> Rules {
        let margin = if self.mistake == Mistake::NoMargin { Duration::ZERO } else { Rules::KUBERNETES.margin };
        Rules { margin, mortality_blocks: MORTALITY, ..Rules::KUBERNETES }
    }

    fn after(&mut self, delay: Time, event: Event) {
        self.sequence += 1;
        self.queue.push(Reverse((self.now + delay, self.sequence, event)));
    }

    fn note(&mut self, text: &str) {
        self.trace.push(format!("{:>8} ms {text}", self.now));
    }

    fn calm(&self) -> bool {
        self.now >= TROUBLE
    }

    /// A new process of a node, which knows nothing of the one before.
    fn start(&mut self, node: usize) {
        let rules = self.rules();
        let life = self.nodes[node].life + 1;
        let it = &mut self.nodes[node];
        it.life = life;
        it.guard = Guard::new(rules, identity(node, life));
        it.jobs.clear();
        it.stopping_since = None;
        let delay = self.rng.random_range(0..3_000);
        self.after(delay, Event::Keeper { node, life });
        self.after(delay + 400, Event::Look { node, life });
        self.after(delay + 500, Event::Wish { node, life });
    }

    fn clock(&self, node: usize) -> Moment {
        let it = &self.nodes[node];
        let now = i64::try_from(self.now).unwrap();
        let elapsed = u64::try_from(now + now * it.rate_ppm / 1_000_000).unwrap();
        let boot = Duration::from_millis(it.boot_offset + elapsed);
        // The same quartz drives both.
        let wall = u64::try_from(1_000_000_000 + i64::try_from(elapsed).unwrap() + it.wall_offset).unwrap();
        let wall = Duration::from_millis(wall);
        if self.mistake == Mistake::TrustsTheWallClock { Moment { boot: wall, wall } } else { Moment { boot, wall } }
    }

    /// Time on the way of a message: mostly short, at times very long; `None` if it is lost.
    fn delay(&mut self, node: usize) -> Option<Time> {
        if self.nodes[node].partitioned_until > self.now {
            return None;
        }
        if self.calm() {
            return Some(self.rng.random_range(1..50));
        }
        match self.rng.random_range(0..100) {
            0..3 => None,
            3..10 => Some(self.rng.random_range(1_000..20_000)),
            10..12 => Some(self.rng.random_range(20_000..80_000)),
            _ => Some(self.rng.random_range(1..200)),
        }
    }

    /// Time between two steps of a process.
    fn gap(&mut self) -> Time {
        if !self.calm() && self.rng.random_ratio(1, 25) { self.rng.random_range(100..2_000) } else { 1 }
    }

    fn run(&mut self) -> Result<(), String> {
        while let Some(Reverse((time, _, event))) = self.queue.pop() {
            if time >= TROUBLE + CALM {
                break;
            }
            self.now = time;
            if let Some((node, life)) = process_of(&event) {
                if self.nodes[node].life != life {
                    continue;
                }
                let paused_until = self.nodes[node].paused_until;
                if paused_until > time {
                    self.after(paused_until - time, event);
                    continue;
                }
            }
            self.handle(event)?;
        }
        if self.messages_in_calm == 0 || self.accepted_in_calm == 0 {
            let why: Vec<_> = (0..2).map(|node| self.nodes[node].guard.permit(self.clock(node))).collect();
            let (messages, accepted) = (self.messages_in_calm, self.accepted_in_calm);
            return Err(format!(
                "after the faults {messages} messages were signed, {accepted} extrinsics accepted: {why:?}"
            ));
        }
        Ok(())
    }

    fn handle(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Keeper { node, life } => self.keeper(node, life),
            Event::Deadline { node, request, .. } => {
                self.finish(node, request, Answer::Failed("no answer".into()));
            }
            Event::StoreAsked { node, life, request } => self.store(node, life, request),
            Event::StoreAnswered { node, request, .. } => {
                if let Some(answer) = self.requests.get(&request).and_then(|(_, answer, _)| answer.clone()) {
                    self.finish(node, request, answer);
                }
            }
            Event::Wish { node, life } => self.wish(node, life),
            Event::Signing { node, life, job } => return self.sign(node, life, job),
            Event::Look { node, life } => self.look(node, life),
            Event::Head { node, asked: (boot, wall), block, .. } => self.head(node, Moment { boot, wall }, block),
            Event::Submitted { extrinsic } => self.extrinsics[extrinsic].arrived = true,
            Event::Block => return self.make_block(),
            Event::Fault => self.fault(),
        }
        Ok(())
    }

    fn keeper(&mut self, node: usize, life: u32) {
        let now = self.clock(node);
        if let Some(ticket) = self.nodes[node].guard.begin(now) {
            self.sequence += 1;
            let request = self.sequence;
            self.requests.insert(request, (ticket, None, false));
            let deadline = u64::try_from(self.rules().deadline.as_millis()).unwrap();
            let gap = self.gap();
            self.after(deadline, Event::Deadline { node, life, request });
            if let Some(delay) = self.delay(node) {
                self.after(gap + delay, Event::StoreAsked { node, life, request });
            }
        }
        if self.nodes[node].guard.is_stopped()
            || self.nodes[node].stopping_since.is_some_and(|since| self.now > since + 3_000)
        {
            self.note(&format!("{} ended", identity(node, life)));
            return self.start(node);
        }
        let wait = self.nodes[node].guard.wait(now).as_millis().clamp(50, 1_000);
        let gap = self.gap();
        self.after(u64::try_from(wait).unwrap() + gap, Event::Keeper { node, life });
    }

    /// The store does what it is asked at once; what it says may take its time.
    fn store(&mut self, node: usize, life: u32, request: u64) {
        let Some((ticket, ..)) = self.requests.get(&request) else { return };
        let answer = match ticket.request.clone() {
            Request::Read => Answer::Found(self.lease.clone()),
            Request::Write { over, .. } if over != self.lease.as_ref().map(|lease| lease.version.clone()) => {
                Answer::Conflict
            }
            Request::Write { record, .. } => {
                self.versions += 1;
                let written = LeaseRecord { version: self.versions.to_string(), ..record };
                if self.lease.as_ref().and_then(|before| before.holder.as_ref()) != written.holder.as_ref() {
                    self.takeovers += 1;
                    self.note(&format!("lease: {:?} epoch {} {:?}", written.holder, written.epoch, written.fence));
                }
                self.lease = Some(written.clone());
                Answer::Written(written)
            }
        };
        if let Some((_, slot, _)) = self.requests.get_mut(&request) {
            *slot = Some(answer);
        }
        if let Some(delay) = self.delay(node) {
            self.after(delay, Event::StoreAnswered { node, life, request });
        }
    }

    fn finish(&mut self, node: usize, request: u64, answer: Answer) {
        let now = self.clock(node);
        let Some((ticket, _, done)) = self.requests.get_mut(&request) else { return };
        if std::mem::replace(done, true) {
            return;
        }
        let ticket = ticket.clone();
        let ticket = if self.mistake == Mistake::CountsFromTheAnswer { ticket.sent_at(now) } else { ticket };
        self.nodes[node].guard.finish(&ticket, answer, now);
    }

    fn wish(&mut self, node: usize, life: u32) {
        let it = &self.nodes[node];
        let extrinsic = self.rng.random_bool(0.6).then_some((it.head, it.nonce));
        self.sequence += 1;
        let job = self.sequence;
        self.nodes[node].jobs.insert(job, Job { extrinsic, step: Step::Wanted, tries: 0 });
        let (gap, next) = (self.gap(), self.rng.random_range(500..3_000));
        self.after(gap, Event::Signing { node, life, job });
        self.after(next, Event::Wish { node, life });
    }

    fn permit(&mut self, node: usize, extrinsic: Option<(u64, u64)>) -> Result<Permit, NotHeld> {
        let now = self.clock(node);
        let it = &mut self.nodes[node];
        match extrinsic {
            Some((birth, _)) if self.mistake != Mistake::NoFence => {
                it.guard.permit_extrinsic(now, birth + MORTALITY, it.head.saturating_sub(FINALITY_LAG))
            }
            _ => it.guard.permit(now),
        }
    }

    fn sign(&mut self, node: usize, life: u32, job: u64) -> Result<(), String> {
        let Some(mut it) = self.nodes[node].jobs.remove(&job) else { return Ok(()) };
        let looks_twice = self.mistake != Mistake::NoSecondLook;
        it.step =
            match it.step {
                Step::Wanted => match self.permit(node, it.extrinsic) {
                    Ok(permit) => Step::Permitted(permit),
                    Err(NotHeld::FenceNotWritten) if it.tries < 20 => {
                        it.tries += 1;
                        self.nodes[node].jobs.insert(job, it);
                        self.after(200, Event::Signing { node, life, job });
                        return Ok(());
                    }
                    Err(_) => return Ok(()),
                },
                Step::Permitted(permit) => Step::Made(permit),
                Step::Made(permit) => {
                    let now = self.clock(node);
                    if looks_twice && self.nodes[node].guard.confirm(permit, now).is_err() {
                        return Ok(());
                    }
                    self.released(node, life, permit.epoch, it.extrinsic)?;
                    if it.extrinsic.is_none() {
                        return Ok(());
                    }
                    Step::Released
                }
                Step::Released => {
                    if looks_twice && self.permit(node, it.extrinsic).is_err() {
                        return Ok(());
                    }
                    Step::Sending
                }
                // From here on nothing can be called back: what is sent now may arrive when it likes, and twice.
                Step::Sending => {
                    let who = identity(node, life);
                    let Some(extrinsic) = self.extrinsics.iter().rposition(|one| {
                        one.signer == who && it.extrinsic == Some((one.birth, one.nonce)) && !one.arrived
                    }) else {
                        return Ok(());
                    };
                    for _ in 0..=u8::from(self.rng.random_ratio(1, 10)) {
                        if let Some(delay) = self.delay(node) {
                            self.after(delay, Event::Submitted { extrinsic });
                        }
                    }
                    return Ok(());
                }
            };
        self.nodes[node].jobs.insert(job, it);
        let gap = self.gap();
        self.after(gap, Event::Signing { node, life, job });
        Ok(())
    }

    /// A signature leaves the signer: here is where nothing may be wrong.
    fn released(&mut self, node: usize, life: u32, epoch: u64, extrinsic: Option<(u64, u64)>) -> Result<(), String> {
        let who = identity(node, life);
        let holder = self.lease.as_ref().and_then(|lease| lease.holder.clone());
        // Who makes a removed lease anew holds it by name only, until its predecessor's time is over.
        let removed_lately = self.removed.is_some_and(|removed| self.now < removed + 15_500);
        if holder.as_ref().is_some_and(|holder| *holder != who) && !removed_lately {
            return Err(format!("{who} signed in epoch {epoch} while {holder:?} held the lease"));
        }
        let tenure = (who.clone(), epoch);
        match self.tenures.iter().position(|one| *one == tenure) {
            None => self.tenures.push(tenure),
            Some(place) if place + 1 == self.tenures.len() => {}
            Some(_) => {
                let last = self.tenures.last();
                return Err(format!("{who} signed in epoch {epoch} after {last:?} had signed"));
            }
        }
        let Some((birth, nonce)) = extrinsic else {
            self.messages_in_calm += u32::from(self.calm());
            return Ok(());
        };
        let alive = |one: &Extrinsic| one.signer != who && one.included.is_none() && one.death > self.block + 1;
        if let Some(other) = self.extrinsics.iter().find(|one| alive(one)) {
            return Err(format!(
                "{who} signed an extrinsic at block {} while this one may still enter: {other:?}",
                self.block
            ));
        }
        let death = birth + MORTALITY;
        self.note(&format!("{who} signed an extrinsic: nonce {nonce}, dies at {death}"));
        self.extrinsics.push(Extrinsic { signer: who, nonce, birth, death, included: None, arrived: false });
        Ok(())
    }

    fn make_block(&mut self) -> Result<(), String> {
        self.block += 1;
        let last =
            self.extrinsics.iter().filter(|one| one.included.is_some()).map(|one| one.signer.clone()).next_back();
        let next = self.extrinsics.iter().position(|one| {
            let valid = one.birth <= self.block && self.block < one.death;
            one.arrived && one.included.is_none() && one.nonce == self.nonce && valid
        });
        if let Some(next) = next {
            self.nonce += 1;
            self.accepted += 1;
            self.accepted_in_calm += u32::from(self.calm());
            self.extrinsics[next].included = Some(self.block);
            let one = self.extrinsics[next].clone();
            self.note(&format!("block {} takes nonce {} of {} (last: {last:?})", self.block, one.nonce, one.signer));
            let later = self.extrinsics[next + 1..].iter().find(|later| later.signer != one.signer);
            if let Some(later) = later {
                return Err(format!("block {} took {one:?} although this one was signed since: {later:?}", self.block));
            }
        }
        self.after(BLOCK, Event::Block);
        Ok(())
    }

    fn look(&mut self, node: usize, life: u32) {
        let Moment { boot, wall } = self.clock(node);
        if let (Some(there), Some(back)) = (self.delay(node), self.delay(node)) {
            // The oldest answer that is true: the head when it was asked.
            self.after(there + back, Event::Head { node, life, asked: (boot, wall), block: self.block });
        }
        self.after(BLOCK / 2, Event::Look { node, life });
    }

    /// Heads may come late and out of order; nobody believes in an older one.
    fn head(&mut self, node: usize, asked: Moment, block: u64) {
        let included = self.extrinsics.iter().filter(|one| one.included.is_some_and(|at| at <= block)).count();
        let it = &mut self.nodes[node];
        if block > it.head {
            it.head = block;
            it.nonce = u64::try_from(included).unwrap();
            it.guard.looked(asked, block, block.saturating_sub(FINALITY_LAG));
        }
    }

    fn fault(&mut self) {
        if self.calm() {
            for node in &mut self.nodes {
                node.paused_until = 0;
                node.partitioned_until = 0;
            }
            return;
        }
        let node = self.rng.random_range(0..2);
        let until = (self.now + self.rng.random_range(500..60_000)).min(TROUBLE);
        match self.rng.random_range(0..12) {
            0..4 => {
                self.nodes[node].paused_until = until;
                self.note(&format!("node {node} is paused until {until}"));
            }
            4..6 => {
                self.nodes[node].partitioned_until = until;
                self.note(&format!("node {node} is cut off until {until}"));
            }
            6..8 => {
                let jump = self.rng.random_range(-600_000..600_000);
                self.nodes[node].wall_offset += jump;
                self.note(&format!("wall clock of node {node} jumps by {jump}"));
            }
            8..9 => {
                self.note(&format!("node {node} is killed"));
                self.nodes[node].paused_until = 0;
                self.start(node);
            }
            9..11 => {
                self.note(&format!("node {node} is told to stop"));
                let now = self.now;
                self.nodes[node].guard.stop();
                self.nodes[node].stopping_since.get_or_insert(now);
            }
            _ => {
                if self.rng.random_bool(0.3) && self.lease.take().is_some() {
                    self.removed = Some(self.now);
                    self.note("the lease is removed");
                }
            }
        }
        let next = self.rng.random_range(500..15_000);
        self.after(next, Event::Fault);
        if self.now + next >= TROUBLE {
            self.after(TROUBLE - self.now, Event::Fault);
        }
    }
}

fn identity(node: usize, life: u32) -> String {
    format!("n{node}.{life}")
}

/// The process in which an event happens, if it does in one.
fn process_of(event: &Event) -> Option<(usize, u32)> {
    match event {
        Event::Keeper { node, life }
        | Event::Deadline { node, life, .. }
        | Event::StoreAnswered { node, life, .. }
        | Event::Signing { node, life, .. }
        | Event::Wish { node, life }
        | Event::Look { node, life }
        | Event::Head { node, life, .. } => Some((*node, *life)),
        _ => None,
    }
}

/// Plays one schedule.
fn play(seed: u64, mistake: Mistake) -> Result<World, String> {
    let mut world = World::new(seed, mistake);
    match world.run() {
        Ok(()) => Ok(world),
        Err(error) => {
            let from = world.trace.len().saturating_sub(60);
            Err(format!("SEED={seed}: {error}\n{}", world.trace[from..].join("\n")))
        }
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}: `{text}` is no number")))
}

#[test]
fn schedules_of_two_sidecars_with_one_key_never_sign_twice_and_always_sign_again() {
    let seeds = number("SEED").map_or(0..number("SEEDS").unwrap_or(3_000), |seed| seed..seed + 1);
    let count = seeds.end - seeds.start;
    let (mut accepted, mut takeovers) = (0, 0);
    for seed in seeds {
        let world = play(seed, Mistake::None).unwrap_or_else(|error| panic!("{error}"));
        accepted += u64::from(world.accepted);
        takeovers += u64::from(world.takeovers);
    }
    println!(
        "{count} schedules: {takeovers} changes of the lease, {accepted} extrinsics accepted, no double signature"
    );
    // A schedule in which nothing happens proves nothing.
    assert!(accepted > 5 * count && takeovers > 3 * count, "{accepted} {takeovers}");
}

#[test]
fn every_mistake_of_a_guard_is_noticed() {
    for mistake in [
        Mistake::CountsFromTheAnswer,
        Mistake::NoMargin,
        Mistake::TrustsTheWallClock,
        Mistake::NoSecondLook,
        Mistake::NoFence,
    ] {
        // Some mistakes cost liveness as well; here they have to cost safety.
        let unsafe_in = |seed| play(seed, mistake).err().filter(|error| !error.contains("after the faults"));
        let noticed = (0..5_000).find_map(|seed| unsafe_in(seed).map(|error| (seed, error)));
        let (seed, error) = noticed.unwrap_or_else(|| panic!("{mistake:?} went unnoticed"));
        println!("{mistake:?}: noticed in schedule {seed}: {}", error.lines().next().unwrap_or_default());
    }
}

#[test]
fn a_seed_is_a_schedule() {
    let trace = |seed| play(seed, Mistake::None).map(|world| world.trace).unwrap();
    assert_eq!(trace(7), trace(7));
    assert_ne!(trace(7), trace(8));
}
