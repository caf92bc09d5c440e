//! The machine with all that it acts on, under any order of requests, ends, losses,
//! failures, kills of hostd and reboots.
//!
//! Actions are performed one at a time: whatever comes from outside may come between
//! two of them. Requests wait until a step is done, as the supervisor has them do.
//! Afterwards everything is left to itself, and what there is must be what is wanted.

use std::collections::VecDeque;

use dyno_api::dyno::RestartPolicy;
use proptest::prelude::*;

use super::*;

/// What happens next.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// Somebody asks for this.
    Ask(Input),
    /// One action is performed.
    Work,
    /// The next container cannot be made.
    PrepareFails,
    /// The dyno's program ends.
    ProgramEnds {
        /// Because the system had it end.
        by_system: bool,
    },
    MonitorDies,
    /// It reads what it was told, also by a hostd that is no more.
    MonitorHears,
    HostdDies,
    HostdStarts,
    Reboot,
    PauseOver,
    NobodyCame,
}

/// A monitor's last word.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct LastWord {
    by_system: bool,
}

#[derive(Clone, Copy, Debug)]
struct Monitor {
    /// To start.
    told: bool,
    started: bool,
    stopping: bool,
}

/// What a monitor has on record until the dyno is cleaned up.
#[derive(Clone, Copy, Debug)]
struct Trace {
    started: bool,
    last_word: Option<LastWord>,
    /// A hostd has begun to take down what there is.
    condemned: bool,
}

/// What survives hostd, and of it `record` and `folder` a reboot.
#[derive(Debug)]
struct World {
    record: Option<Wanted>,
    folder: bool,
    monitor: Option<Monitor>,
    trace: Option<Trace>,
    network: bool,
    hostd: Option<Hostd>,
    /// The boot has no trace of a dyno that was there before.
    is_new_boot: bool,
    fails_next: bool,
    /// A monitor was killed by somebody else, or the machine ended.
    harmed: bool,
    rm: bool,
    restart: RestartPolicy,
    /// The request that is being served.
    asked: Option<Input>,
    promise: Promise,
}

/// What nobody may find otherwise later.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Promise {
    Nothing,
    Runs,
    Rests,
    Gone,
}

/// A supervisor.
#[derive(Debug)]
struct Hostd {
    state: State,
    wanted: Wanted,
    actions: VecDeque<Action>,
    /// It has a monitor that it listens to.
    listens: bool,
    pause: bool,
    unrecorded: bool,
    forgotten: bool,
    /// What follows when recovery has taken down what there was.
    then: Option<Input>,
}

impl Hostd {
    fn new(state: State, wanted: Wanted, listens: bool) -> Self {
        Self {
            state,
            wanted,
            actions: VecDeque::new(),
            listens,
            pause: false,
            unrecorded: false,
            forgotten: false,
            then: None,
        }
    }
}

impl World {
    fn new(rm: bool, restart: RestartPolicy) -> Self {
        Self {
            record: Some(Wanted::Created),
            folder: true,
            monitor: None,
            trace: None,
            network: false,
            hostd: Some(Hostd::new(State::Resting, Wanted::Created, false)),
            is_new_boot: false,
            fails_next: false,
            harmed: false,
            rm,
            restart,
            asked: None,
            promise: Promise::Nothing,
        }
    }

    fn hostd(&mut self) -> &mut Hostd {
        self.hostd.as_mut().expect("hostd is there")
    }

    fn traits(&self) -> Traits {
        let hostd = self.hostd.as_ref().expect("hostd is there");
        Traits {
            rm: self.rm,
            restart: self.restart,
            wanted: hostd.wanted,
        }
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Ask(input) => self.ask(input),
            Event::Work => self.work(),
            Event::PrepareFails => self.fails_next = true,
            Event::ProgramEnds { by_system } => self.program_ends(by_system),
            Event::MonitorDies => {
                self.harmed |= self.monitor.is_some();
                if self.monitor.take().is_some() && self.promise == Promise::Runs {
                    self.unless_restarted();
                }
            }
            Event::MonitorHears => self.monitor_hears(),
            Event::HostdDies => self.hostd = None,
            Event::HostdStarts => self.hostd_starts(),
            Event::Reboot => {
                (self.monitor, self.trace, self.network) = (None, None, false);
                (self.hostd, self.is_new_boot) = (None, true);
                self.harmed = true;
                if self.promise == Promise::Runs {
                    self.unless_restarted();
                }
            }
            Event::PauseOver => {
                if self.is_idle() && std::mem::take(&mut self.hostd().pause) {
                    self.input(Input::RestartDue);
                }
            }
            Event::NobodyCame => {
                if self.is_idle() && is_leased(self.hostd().state, self.traits()) {
                    self.input(Input::Deserted);
                    self.promise = Promise::Nothing;
                }
            }
        }
    }

    /// It need not run any more, if nobody starts it again.
    fn unless_restarted(&mut self) {
        if self.rm || self.restart == RestartPolicy::No {
            self.promise = Promise::Nothing;
        }
    }

    fn is_idle(&self) -> bool {
        let hostd = self.hostd.as_ref();
        hostd.is_some_and(|hostd| {
            hostd.actions.is_empty() && hostd.then.is_none() && !hostd.forgotten
        })
    }

    fn ask(&mut self, input: Input) {
        while self.hostd.is_some() && !self.is_idle() && !self.hostd().forgotten {
            self.work();
        }
        self.hear();
        while self.hostd.is_some() && !self.is_idle() && !self.hostd().forgotten {
            self.work();
        }
        if !self.is_idle() {
            return;
        }
        self.asked = Some(input);
        // Until it is answered, either may be so.
        let changes = matches!(input, Input::Start | Input::Stop | Input::Remove { .. });
        if changes && self.promise != Promise::Gone {
            self.promise = Promise::Nothing;
        }
        self.input(input);
    }

    fn input(&mut self, input: Input) {
        let (state, traits) = (self.hostd().state, self.traits());
        match step(state, input, traits) {
            Ok((next, actions)) => {
                let hostd = self.hostd();
                hostd.state = next;
                hostd.actions.extend(actions);
                self.answer_if_done();
            }
            Err(_) => self.asked = None,
        }
    }

    fn answer_if_done(&mut self) {
        if !self.hostd().actions.is_empty() {
            return;
        }
        match self.asked.take() {
            Some(Input::Start) => self.promise = Promise::Runs,
            Some(Input::Stop) if self.hostd().wanted == Wanted::Created => {}
            Some(Input::Stop) => self.promise = Promise::Rests,
            Some(Input::Remove { .. }) => self.promise = Promise::Gone,
            _ => {}
        }
    }

    /// One action, or what the supervisor does when it has none.
    fn work(&mut self) {
        if self.hostd.as_ref().is_none_or(|hostd| hostd.forgotten) {
            return;
        }
        let Some(action) = self.hostd().actions.pop_front() else {
            match self.hostd().then.take() {
                Some(input) => self.input(input),
                None => self.hear(),
            }
            return;
        };
        if self.perform(action) {
            self.answer_if_done();
        } else {
            self.failed();
        }
    }

    /// Takes the end of a monitor in.
    fn hear(&mut self) {
        if !self.is_idle() || !self.hostd().listens || self.monitor.is_some() {
            return;
        }
        self.hostd().listens = false;
        let again = self.hostd().wanted == Wanted::Running && self.restart != RestartPolicy::No;
        let last_word = self.trace.and_then(|trace| trace.last_word);
        self.input(match last_word {
            Some(LastWord { by_system: true }) if again && !self.rm => Input::Lost,
            Some(_) => Input::Ended,
            None => {
                assert!(self.harmed, "lost, and nobody has harmed it");
                Input::Lost
            }
        });
    }

    /// Whether it could be done.
    fn perform(&mut self, action: Action) -> bool {
        match action {
            Action::Want(wanted) => {
                self.hostd().wanted = wanted;
                let record = self.record.as_mut().expect("a record of what is wanted");
                *record = wanted;
            }
            Action::Prepare => {
                if std::mem::take(&mut self.fails_next) {
                    return false;
                }
                assert!(self.monitor.is_none(), "a second monitor");
                assert!(!self.network, "a second link");
                self.monitor = Some(Monitor {
                    told: false,
                    started: false,
                    stopping: false,
                });
                self.trace = Some(Trace {
                    started: false,
                    last_word: None,
                    condemned: false,
                });
                (self.network, self.is_new_boot) = (true, false);
                self.hostd().listens = true;
            }
            Action::Start => {
                // One that was told to end refuses.
                let monitor = self.monitor.as_mut();
                let Some(monitor) = monitor.filter(|monitor| !monitor.stopping) else {
                    return false;
                };
                // It is told first, and answers later.
                if !std::mem::replace(&mut monitor.told, true) {
                    self.hostd().actions.push_front(Action::Start);
                    return true;
                }
                self.monitor_hears();
            }
            Action::Stop => {
                if let Some(monitor) = &mut self.monitor {
                    monitor.stopping = true;
                }
            }
            Action::Signal => {}
            Action::Kill => {
                self.monitor = None;
                self.hostd().listens = false;
            }
            Action::CleanUp => self.clean_up(),
            Action::Pause => self.hostd().pause = true,
            Action::Unrecord => {
                self.record = None;
                self.hostd().unrecorded = true;
            }
            Action::Forget => {
                assert!(self.record.is_none(), "it would come back");
                self.folder = false;
                self.hostd().forgotten = true;
            }
        }
        true
    }

    fn monitor_hears(&mut self) {
        if let Some(monitor) = &mut self.monitor
            && monitor.told
            && !monitor.stopping
        {
            monitor.started = true;
            self.trace = self.trace.map(|trace| Trace {
                started: true,
                ..trace
            });
        }
    }

    fn clean_up(&mut self) {
        assert!(self.monitor.is_none(), "it still runs");
        (self.trace, self.network) = (None, false);
        let wanted = self.hostd().wanted;
        self.hostd().listens = false;
        if !self.rm && !self.hostd().unrecorded {
            self.record = Some(wanted);
        }
    }

    /// As the driver has it.
    fn failed(&mut self) {
        let asked = self.asked.take().is_some();
        self.hostd().actions.clear();
        if self.hostd().state == State::Live && self.hostd().listens {
            return;
        }
        let again =
            !asked && self.hostd().wanted == Wanted::Running && self.restart != RestartPolicy::No;
        if !again {
            self.hostd().wanted = Wanted::Stopped;
            self.hostd().state = State::Resting;
        }
        self.hostd().unrecorded = false;
        self.clean_up();
        self.record = Some(self.hostd().wanted);
        if again {
            self.hostd().state = State::Waiting;
            self.hostd().pause = true;
        }
        if self.promise == Promise::Runs {
            self.unless_restarted();
        }
    }

    fn program_ends(&mut self, by_system: bool) {
        let Some(monitor) = self.monitor else { return };
        let is_restarted = self.restart != RestartPolicy::No && !monitor.stopping && !by_system;
        if !monitor.stopping && (!monitor.started || is_restarted) {
            return;
        }
        self.monitor = None;
        self.trace = self.trace.map(|trace| Trace {
            last_word: Some(LastWord { by_system }),
            ..trace
        });
        if self.promise == Promise::Runs {
            self.unless_restarted();
        }
    }

    fn hostd_starts(&mut self) {
        if self.hostd.is_some() {
            return;
        }
        self.asked = None;
        let Some(wanted) = self.record else {
            (self.monitor, self.trace) = (None, None);
            (self.network, self.folder) = (false, false);
            return;
        };
        let evidence = match (self.monitor, self.trace) {
            _ if self.is_new_boot => Evidence::Nothing,
            (Some(_), Some(trace)) if trace.condemned => Evidence::Unstarted,
            (Some(monitor), _) if monitor.started => Evidence::Started,
            (Some(_), _) | (None, None) => Evidence::Unstarted,
            (None, Some(trace)) if trace.condemned => Evidence::Unstarted,
            (None, Some(trace)) => match trace.last_word {
                Some(LastWord { by_system: true }) => Evidence::LastWordBySystem,
                Some(_) => Evidence::LastWord,
                None if trace.started => Evidence::Vanished,
                None => Evidence::Unstarted,
            },
        };
        let listens = self.monitor.is_some();
        self.hostd = Some(Hostd::new(State::Resting, wanted, listens));
        match recover(evidence, self.traits()) {
            Recovery::Adopt { stop } => {
                self.hostd().state = State::Live;
                if stop {
                    self.input(Input::Stop);
                }
            }
            Recovery::Ended => self.input(Input::Ended),
            Recovery::Lost => {
                assert!(self.harmed, "lost, and nobody has harmed it");
                self.hostd().state = State::Live;
                self.input(Input::Lost);
            }
            Recovery::Start => self.take_down(Some(Input::Start)),
            Recovery::Rest => self.take_down(None),
            Recovery::Forget => {
                self.hostd().state = State::Live;
                self.input(Input::Remove { force: true });
            }
        }
        self.is_new_boot = false;
    }

    fn take_down(&mut self, then: Option<Input>) {
        if let Some(trace) = &mut self.trace {
            trace.condemned = true;
        }
        let hostd = self.hostd();
        hostd.actions.extend([Action::Kill, Action::CleanUp]);
        hostd.then = then;
    }

    /// Nothing more comes from outside.
    fn settle(&mut self) {
        self.fails_next = false;
        self.happens(Event::HostdStarts);
        for _ in 0..40 {
            if self.monitor.is_some_and(|monitor| monitor.stopping) {
                self.program_ends(false);
            }
            self.happens(Event::Work);
            self.happens(Event::PauseOver);
        }
    }

    /// What there is is what is wanted, and nothing else.
    fn check(&self) {
        if self.record.is_none() {
            assert!(!self.folder && self.monitor.is_none() && !self.network);
            assert!(matches!(self.promise, Promise::Gone | Promise::Nothing) || self.rm);
            return;
        }
        let hostd = self.hostd.as_ref().expect("hostd is there");
        assert!(self.folder && hostd.actions.is_empty() && !hostd.pause);
        assert_eq!(self.record, Some(hostd.wanted), "on disk and in mind");
        assert_ne!(self.promise, Promise::Gone, "it was removed");
        let runs = self.monitor.is_some_and(|monitor| monitor.started);
        match hostd.wanted {
            Wanted::Running => assert!(runs && hostd.state == State::Live),
            Wanted::Stopped => {
                assert!(self.monitor.is_none() && !self.network && self.trace.is_none());
                assert_eq!(hostd.state, State::Resting);
            }
            Wanted::Created => assert!(!runs, "nobody started it"),
        }
        match self.promise {
            Promise::Runs => assert!(runs, "it was started"),
            Promise::Rests => assert!(!runs, "it was stopped"),
            Promise::Gone | Promise::Nothing => {}
        }
        assert_eq!(
            self.monitor.is_some(),
            hostd.listens,
            "a monitor for itself"
        );
        assert_eq!(self.monitor.is_some(), self.network);
    }
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => Just(Event::Ask(Input::Start)),
        2 => Just(Event::Ask(Input::Prepare)),
        3 => Just(Event::Ask(Input::Stop)),
        1 => Just(Event::Ask(Input::Signal)),
        1 => any::<bool>().prop_map(|force| Event::Ask(Input::Remove { force })),
        12 => Just(Event::Work),
        1 => Just(Event::PrepareFails),
        2 => any::<bool>().prop_map(|by_system| Event::ProgramEnds { by_system }),
        2 => Just(Event::MonitorDies),
        2 => Just(Event::MonitorHears),
        3 => Just(Event::HostdDies),
        4 => Just(Event::HostdStarts),
        1 => Just(Event::Reboot),
        2 => Just(Event::PauseOver),
        1 => Just(Event::NobodyCame),
    ]
}

fn restart() -> impl Strategy<Value = RestartPolicy> {
    prop_oneof![
        Just(RestartPolicy::No),
        Just(RestartPolicy::Always),
        Just(RestartPolicy::OnFailure { max_retries: None }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn whatever_happens_in_any_order_ends_as_was_wanted(
        rm: bool,
        restart in restart(),
        events in proptest::collection::vec(event(), 0..60),
    ) {
        let mut world = World::new(rm, restart);
        for event in events {
            world.happens(event);
        }
        world.settle();
        world.check();
    }
}

/// Found by kills at random: a monitor heard of a start from a hostd that was no more,
/// while the next one was about to take it down, and the one after that took the dyno
/// for lost.
#[test]
fn who_is_killed_while_it_takes_down_leaves_no_loss() {
    let start = [
        Event::Ask(Input::Start),
        Event::Work,
        Event::Work,
        Event::Work,
        Event::HostdDies,
    ];
    let take_down = [
        Event::HostdStarts,
        Event::MonitorHears,
        Event::Work,
        Event::HostdDies,
    ];
    let mut world = World::new(false, RestartPolicy::No);
    for event in start.into_iter().chain(take_down) {
        world.happens(event);
    }
    world.settle();
    world.check();
    assert!(world.monitor.is_some_and(|monitor| monitor.started));
}
