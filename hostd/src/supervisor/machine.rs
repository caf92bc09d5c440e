//! The life of a dyno as its supervisor sees it: (state, input) → (state,
//! actions). Pure; the driver performs.
//!
//! ```text
//!              prepare             start
//!   Resting ─────────────▶ Prepared ─────▶ Live ──ended──▶ Resting
//!      ▲  └──────────────start──────────────▲ │
//!      │                                    │ lost
//!      │               restart due          │ ▼
//!      └──stop─────────────────────────── Waiting
//! ```
//! Restarts by policy are the monitor's own business while it lives; only a
//! monitor that vanished is replaced from here.

use dyno_api::dyno::RestartPolicy;

use crate::desired::Wanted;

/// Where a dyno is, seen from its supervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// No monitor.
    Resting,
    /// A monitor with a container that was not started.
    Prepared,
    /// A monitor whose dyno was started.
    Live,
    /// No monitor; one is started again later.
    Waiting,
}

/// What happens to a supervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// Have a container that can be attached to.
    Prepare,
    /// Run.
    Start,
    /// End.
    Stop,
    /// Send a signal.
    Signal,
    /// Remove it, running or not.
    Remove {
        /// Also when it runs.
        force: bool,
    },
    /// The monitor went and left its last word.
    Ended,
    /// The monitor went without one.
    Lost,
    /// The pause after a loss is over.
    RestartDue,
    /// The time of a [lease](is_leased) passed: nobody is attached, and nobody
    /// has asked for anything.
    Deserted,
}

/// What a driver does, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Record what is wanted, durably.
    Want(Wanted),
    /// Start a monitor, plumb its network.
    Prepare,
    /// Let the monitor start the command.
    Start,
    /// Ask the monitor to end it; the end comes as an input.
    Stop,
    /// Let the monitor send the signal.
    Signal,
    /// Kill whatever is left, at once.
    Kill,
    /// Take down what stands for the dyno outside of its folder.
    CleanUp,
    /// Begin a pause, longer with each loss.
    Pause,
    /// Remove its record, durably: from here on a crash completes the removal.
    Unrecord,
    /// Forget it: layer, logs, and who it was.
    Forget,
}

/// What of a dyno the decisions depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traits {
    /// It goes once it has ended.
    pub rm: bool,
    /// Its restart policy.
    pub restart: RestartPolicy,
    /// What was last asked of it.
    pub wanted: Wanted,
}

/// Why an input is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It runs.
    #[error("it is running")]
    Running,
    /// It does not run.
    #[error("it is not running")]
    NotRunning,
}

type Step = Result<(State, Vec<Action>), Refusal>;

/// What follows from an input.
///
/// # Errors
/// [`Refusal`] where a request does not fit the state.
pub fn step(state: State, input: Input, traits: Traits) -> Step {
    match input {
        Input::Prepare => prepare(state, traits),
        Input::Start => start(state),
        Input::Stop => Ok(stop(state)),
        Input::Signal => match state {
            State::Live => Ok((State::Live, vec![Action::Signal])),
            _ => Err(Refusal::NotRunning),
        },
        Input::Remove { force } => remove(state, force),
        Input::Ended => Ok(ended(traits)),
        Input::Lost => Ok(lost(state, traits)),
        Input::RestartDue => match state {
            State::Waiting => Ok((State::Live, vec![Action::Prepare, Action::Start])),
            other => Ok((other, vec![])),
        },
        Input::Deserted if is_leased(state, traits) => remove(state, true),
        Input::Deserted => Ok((state, vec![])),
    }
}

/// Whether the dyno is there only as long as somebody is about to start it: it
/// goes with its end, and what never begins never ends. Its client may be dead.
pub fn is_leased(state: State, traits: Traits) -> bool {
    traits.rm && matches!(state, State::Resting | State::Prepared)
}

fn prepare(state: State, traits: Traits) -> Step {
    match state {
        State::Resting if traits.wanted == Wanted::Created => {
            Ok((State::Prepared, vec![Action::Prepare]))
        }
        State::Resting | State::Waiting => Err(Refusal::NotRunning),
        State::Prepared | State::Live => Ok((state, vec![])),
    }
}

fn start(state: State) -> Step {
    let wanted = Action::Want(Wanted::Running);
    match state {
        State::Resting | State::Waiting => {
            Ok((State::Live, vec![wanted, Action::Prepare, Action::Start]))
        }
        State::Prepared => Ok((State::Live, vec![wanted, Action::Start])),
        State::Live => Err(Refusal::Running),
    }
}

fn stop(state: State) -> (State, Vec<Action>) {
    let wanted = Action::Want(Wanted::Stopped);
    match state {
        State::Resting => (State::Resting, vec![]),
        // Shows what rests, for there is no end to come.
        State::Waiting => (State::Resting, vec![wanted, Action::CleanUp]),
        State::Prepared | State::Live => (state, vec![wanted, Action::Stop]),
    }
}

fn remove(state: State, force: bool) -> Step {
    match state {
        State::Live if !force => Err(Refusal::Running),
        State::Resting | State::Waiting => {
            Ok((State::Resting, vec![Action::Unrecord, Action::Forget]))
        }
        State::Prepared | State::Live => Ok((
            State::Resting,
            vec![
                Action::Unrecord,
                Action::Kill,
                Action::CleanUp,
                Action::Forget,
            ],
        )),
    }
}

fn ended(traits: Traits) -> (State, Vec<Action>) {
    if traits.rm {
        return (
            State::Resting,
            vec![Action::Unrecord, Action::CleanUp, Action::Forget],
        );
    }
    // Restarting was the monitor's decision: it has ended for good.
    (
        State::Resting,
        vec![Action::Want(Wanted::Stopped), Action::CleanUp],
    )
}

fn lost(state: State, traits: Traits) -> (State, Vec<Action>) {
    let kill = vec![Action::Kill, Action::CleanUp];
    let again = traits.wanted == Wanted::Running && traits.restart != RestartPolicy::No;
    match state {
        State::Prepared => (State::Resting, kill),
        _ if traits.rm => (
            State::Resting,
            [vec![Action::Unrecord], kill, vec![Action::Forget]].concat(),
        ),
        _ if again => (State::Waiting, [kill, vec![Action::Pause]].concat()),
        _ => (
            State::Resting,
            [kill, vec![Action::Want(Wanted::Stopped)]].concat(),
        ),
    }
}

/// What is found of a dyno when hostd starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evidence {
    /// Its monitor answers; the dyno was started.
    Started,
    /// In this boot the dyno was never started. There may be a monitor with a
    /// container, and whether its network is complete is unknown.
    Unstarted,
    /// The monitor's last word is there.
    LastWord,
    /// It is there, and says that the system had the dyno end.
    LastWordBySystem,
    /// There was a monitor in this boot, and it is gone without a last word.
    Vanished,
    /// Nothing of this boot.
    Nothing,
}

/// How supervision is taken up again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recovery {
    /// Watch the monitor; ask it to stop when that was asked before.
    Adopt {
        /// A stop was recorded and perhaps never sent.
        stop: bool,
    },
    /// As if it had ended just now.
    Ended,
    /// As if the monitor had vanished just now.
    Lost,
    /// Kill and clean up what there is, then start it.
    Start,
    /// Kill and clean up what there is; it stays.
    Rest,
    /// Kill and clean up what there is; it goes.
    Forget,
}

/// How supervision is taken up again with this evidence.
pub fn recover(evidence: Evidence, traits: Traits) -> Recovery {
    let restarts = traits.restart != RestartPolicy::No;
    match (evidence, traits.wanted) {
        (Evidence::Started, wanted) => Recovery::Adopt {
            stop: wanted == Wanted::Stopped,
        },
        (Evidence::LastWordBySystem, Wanted::Running) if restarts && !traits.rm => Recovery::Start,
        (Evidence::LastWord | Evidence::LastWordBySystem, _) => Recovery::Ended,
        // The request to start it was recorded, not completed: it is now.
        (Evidence::Unstarted, Wanted::Running) => Recovery::Start,
        (Evidence::Vanished, Wanted::Running) => Recovery::Lost,
        // Whoever waited for it did not survive the reboot either.
        (Evidence::Nothing, _) if traits.rm => Recovery::Forget,
        (Evidence::Nothing, Wanted::Running) if restarts => Recovery::Start,
        (Evidence::Nothing, Wanted::Running) => Recovery::Lost,
        (_, Wanted::Created) => Recovery::Rest,
        (_, Wanted::Stopped) if traits.rm => Recovery::Forget,
        (_, Wanted::Stopped) => Recovery::Rest,
    }
}

#[cfg(test)]
mod model;

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Traits = Traits {
        rm: false,
        restart: RestartPolicy::No,
        wanted: Wanted::Running,
    };
    const ALWAYS: Traits = Traits {
        restart: RestartPolicy::Always,
        ..PLAIN
    };
    const RM: Traits = Traits { rm: true, ..PLAIN };
    const STATES: [State; 4] = [State::Resting, State::Prepared, State::Live, State::Waiting];

    fn actions(state: State, input: Input, traits: Traits) -> Vec<Action> {
        step(state, input, traits).unwrap().1
    }

    #[test]
    fn what_is_wanted_is_recorded_before_it_is_done() {
        for state in STATES {
            for (input, wanted) in [
                (Input::Start, Wanted::Running),
                (Input::Stop, Wanted::Stopped),
            ] {
                let Ok((_, actions)) = step(state, input, PLAIN) else {
                    continue;
                };
                if !actions.is_empty() {
                    assert_eq!(actions[0], Action::Want(wanted), "{state:?} {input:?}");
                }
            }
        }
    }

    #[test]
    fn a_start_needs_a_container_exactly_once() {
        assert_eq!(
            actions(State::Prepared, Input::Start, PLAIN),
            [Action::Want(Wanted::Running), Action::Start]
        );
        let full = [
            Action::Want(Wanted::Running),
            Action::Prepare,
            Action::Start,
        ];
        assert_eq!(actions(State::Resting, Input::Start, PLAIN), full);
        assert_eq!(
            step(State::Live, Input::Start, PLAIN),
            Err(Refusal::Running)
        );
    }

    #[test]
    fn stopping_what_does_not_run_is_fine() {
        assert_eq!(
            step(State::Resting, Input::Stop, PLAIN),
            Ok((State::Resting, vec![]))
        );
        // What waits has no end to come that would show.
        assert_eq!(
            actions(State::Waiting, Input::Stop, PLAIN),
            [Action::Want(Wanted::Stopped), Action::CleanUp]
        );
        assert_eq!(
            step(State::Resting, Input::Signal, PLAIN),
            Err(Refusal::NotRunning)
        );
    }

    #[test]
    fn a_running_dyno_is_removed_only_by_force() {
        let gentle = Input::Remove { force: false };
        assert_eq!(step(State::Live, gentle, PLAIN), Err(Refusal::Running));
        for state in STATES {
            let (next, actions) = step(state, Input::Remove { force: true }, PLAIN).unwrap();
            assert_eq!(
                (next, actions.last()),
                (State::Resting, Some(&Action::Forget))
            );
        }
    }

    #[test]
    fn a_lost_dyno_is_killed_then_restarted_as_its_policy_says() {
        for state in [State::Prepared, State::Live] {
            assert_eq!(
                actions(state, Input::Lost, PLAIN)[..2],
                [Action::Kill, Action::CleanUp]
            );
        }
        assert_eq!(
            step(State::Live, Input::Lost, ALWAYS).unwrap().0,
            State::Waiting
        );
        assert_eq!(
            step(State::Live, Input::Lost, PLAIN).unwrap().0,
            State::Resting
        );
        let stopped = Traits {
            wanted: Wanted::Stopped,
            ..ALWAYS
        };
        assert_eq!(
            step(State::Live, Input::Lost, stopped).unwrap().0,
            State::Resting
        );
        assert_eq!(
            actions(State::Live, Input::Lost, RM).last(),
            Some(&Action::Forget)
        );
        assert_eq!(
            actions(State::Waiting, Input::RestartDue, ALWAYS),
            [Action::Prepare, Action::Start]
        );
        assert_eq!(actions(State::Resting, Input::RestartDue, ALWAYS), []);
    }

    #[test]
    fn a_dyno_to_be_removed_goes_when_it_has_ended() {
        assert_eq!(
            actions(State::Live, Input::Ended, RM),
            [Action::Unrecord, Action::CleanUp, Action::Forget]
        );
        assert!(!actions(State::Live, Input::Ended, ALWAYS).contains(&Action::Forget));
    }

    #[test]
    fn a_deserted_dyno_goes_if_it_would_have_gone_with_its_end() {
        let created = Traits {
            wanted: Wanted::Created,
            ..PLAIN
        };
        let leased = Traits {
            rm: true,
            ..created
        };
        for state in [State::Resting, State::Prepared] {
            let removed = step(state, Input::Remove { force: true }, leased);
            assert_eq!(step(state, Input::Deserted, leased), removed, "{state:?}");
            // Nor is one of use whose start has failed.
            assert_eq!(step(state, Input::Deserted, RM), removed, "{state:?}");
            assert_eq!(step(state, Input::Deserted, created), Ok((state, vec![])));
        }
        // Who is started needs nobody.
        for state in [State::Live, State::Waiting] {
            assert_eq!(step(state, Input::Deserted, RM), Ok((state, vec![])));
        }
    }

    #[test]
    fn only_a_new_dyno_is_prepared_without_being_started() {
        let created = Traits {
            wanted: Wanted::Created,
            ..PLAIN
        };
        assert_eq!(
            actions(State::Resting, Input::Prepare, created),
            [Action::Prepare]
        );
        assert_eq!(
            step(State::Resting, Input::Prepare, PLAIN),
            Err(Refusal::NotRunning)
        );
        assert_eq!(actions(State::Live, Input::Prepare, PLAIN), []);
    }

    #[test]
    fn recovery_neither_drops_nor_doubles_a_dyno() {
        let created = Traits {
            wanted: Wanted::Created,
            ..PLAIN
        };
        let stopped = Traits {
            wanted: Wanted::Stopped,
            ..ALWAYS
        };
        let waiting = Traits {
            rm: true,
            ..created
        };
        let table = [
            (Evidence::Started, PLAIN, Recovery::Adopt { stop: false }),
            (Evidence::Started, stopped, Recovery::Adopt { stop: true }),
            (Evidence::Unstarted, PLAIN, Recovery::Start),
            (Evidence::Unstarted, created, Recovery::Rest),
            (Evidence::LastWord, ALWAYS, Recovery::Ended),
            (Evidence::LastWordBySystem, ALWAYS, Recovery::Start),
            (Evidence::LastWordBySystem, PLAIN, Recovery::Ended),
            (Evidence::LastWordBySystem, stopped, Recovery::Ended),
            (Evidence::LastWordBySystem, RM, Recovery::Ended),
            (Evidence::Vanished, ALWAYS, Recovery::Lost),
            (Evidence::Vanished, RM, Recovery::Lost),
            (Evidence::Vanished, stopped, Recovery::Rest),
            (Evidence::Nothing, ALWAYS, Recovery::Start),
            (Evidence::Nothing, PLAIN, Recovery::Lost),
            (Evidence::Nothing, stopped, Recovery::Rest),
            (Evidence::Nothing, created, Recovery::Rest),
            (Evidence::Nothing, RM, Recovery::Forget),
            // Its client may be there and about to start it.
            (Evidence::Unstarted, waiting, Recovery::Rest),
            (Evidence::Nothing, waiting, Recovery::Forget),
        ];
        for (evidence, traits, expected) in table {
            assert_eq!(
                recover(evidence, traits),
                expected,
                "{evidence:?} {traits:?}"
            );
        }
    }
}
