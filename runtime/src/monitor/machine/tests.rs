//! The table of a dyno's life, and what holds for every sequence of events.

use proptest::prelude::*;

use super::*;

const GRACE: Duration = Duration::from_secs(10);
const STOP: Event = Event::Stop {
    signal: None,
    grace: None,
};
const FAILED: Event = Event::Exited { success: false };
const SUCCEEDED: Event = Event::Exited { success: true };

fn machine(restart: RestartPolicy) -> Machine {
    Machine::new(Settings {
        restart,
        stop_signal: 15,
        grace: GRACE,
    })
}

/// Plays events, one second apart; tells the actions of the last one.
fn play(machine: &mut Machine, events: &[Event]) -> Vec<Action> {
    let begin = Instant::now();
    let mut actions = vec![];
    for (second, &event) in (0..).map(Duration::from_secs).zip(events) {
        actions = machine.step(event, begin + second, 0).unwrap();
    }
    actions
}

#[test]
fn a_run_without_restart_ends_after_its_group_is_gone() {
    let mut dyno = machine(RestartPolicy::No);
    assert_eq!(play(&mut dyno, &[Event::Start]), [Action::Execute]);
    assert_eq!(play(&mut dyno, &[Event::Started]), []);
    assert_eq!(dyno.phase(), Phase::Running);
    assert_eq!(play(&mut dyno, &[FAILED]), [Action::Kill]);
    assert_eq!(play(&mut dyno, &[Event::Emptied]), [Action::Finish]);
    assert_eq!(dyno.phase(), Phase::Exited);
}

#[test]
fn a_failure_is_followed_by_back_off_and_a_launch() {
    let mut dyno = machine(RestartPolicy::Always);
    let run = [Event::Start, Event::Started, SUCCEEDED, Event::Emptied];
    assert_eq!(play(&mut dyno, &run), []);
    assert_eq!(dyno.phase(), Phase::Backoff);
    let due = dyno.deadline().unwrap();
    assert_eq!(dyno.step(Event::Timer, due, 0), Ok(vec![Action::Launch]));
    assert_eq!(dyno.restarts(), 1);
    assert_eq!(dyno.step(Event::Started, due, 0), Ok(vec![]));
    assert_eq!(dyno.phase(), Phase::Running);
}

#[test]
fn an_early_timer_changes_nothing() {
    let mut dyno = machine(RestartPolicy::Always);
    play(
        &mut dyno,
        &[Event::Start, Event::Started, FAILED, Event::Emptied],
    );
    let due = dyno.deadline().unwrap();
    let early = due - Duration::from_millis(1);
    assert_eq!(dyno.step(Event::Timer, early, 0), Ok(vec![]));
    assert_eq!(dyno.deadline(), Some(due));
}

#[test]
fn a_stop_asks_then_kills_and_is_not_followed_by_a_restart() {
    let mut dyno = machine(RestartPolicy::Always);
    let stop = [Event::Start, Event::Started, STOP];
    assert_eq!(play(&mut dyno, &stop), [Action::Signal(15)]);
    assert_eq!(dyno.phase(), Phase::Stopping);
    let due = dyno.deadline().unwrap();
    assert_eq!(dyno.step(Event::Timer, due, 0), Ok(vec![Action::Kill]));
    assert_eq!(dyno.deadline(), None);
    assert_eq!(play(&mut dyno, &[FAILED]), [Action::Kill]);
    assert_eq!(play(&mut dyno, &[Event::Emptied]), [Action::Finish]);
    assert_eq!(dyno.phase(), Phase::Exited);
}

#[test]
fn what_is_saved_is_killed_and_not_restarted_whatever_it_was_about() {
    let fail = Event::Fail {
        healthy: Duration::ZERO,
    };
    for before in [&[][..], &[STOP], &[fail]] {
        let mut dyno = machine(RestartPolicy::Always);
        play(
            &mut dyno,
            &[&[Event::Start, Event::Started], before].concat(),
        );
        assert_eq!(play(&mut dyno, &[Event::Saved]), [Action::Kill]);
        assert_eq!(dyno.deadline(), None);
        assert_eq!(play(&mut dyno, &[FAILED]), [Action::Kill]);
        assert_eq!(play(&mut dyno, &[Event::Emptied]), [Action::Finish]);
        assert_eq!(dyno.phase(), Phase::Exited);
    }
    assert_eq!(play(&mut machine(RestartPolicy::No), &[Event::Saved]), []);
}

#[test]
fn what_does_not_work_is_asked_then_killed_and_counts_as_a_failure_however_it_ends() {
    let fail = Event::Fail {
        healthy: Duration::ZERO,
    };
    for end in [FAILED, SUCCEEDED] {
        let mut dyno = machine(RestartPolicy::OnFailure {
            max_retries: Some(1),
        });
        let failing = [Event::Start, Event::Started, fail];
        assert_eq!(play(&mut dyno, &failing), [Action::Signal(15)]);
        assert_eq!(dyno.phase(), Phase::Stopping);
        // Whoever looks once more changes nothing.
        assert_eq!(play(&mut dyno, &[fail]), []);
        let due = dyno.deadline().unwrap();
        assert_eq!(dyno.step(Event::Timer, due, 0), Ok(vec![Action::Kill]));
        play(&mut dyno, &[end, Event::Emptied]);
        assert_eq!(dyno.phase(), Phase::Backoff);
        // A run that never worked is no healthy spell, however long it was.
        let again = dyno.deadline().unwrap();
        dyno.step(Event::Timer, again, 0).unwrap();
        dyno.step(Event::Started, again, 0).unwrap();
        let late = again + Duration::from_secs(3600);
        dyno.step(fail, late, 0).unwrap();
        dyno.step(end, late, 0).unwrap();
        let last = dyno.step(Event::Emptied, late, 0);
        assert_eq!(last, Ok(vec![Action::Finish]));
        assert_eq!(dyno.gave_up_after(), Some(2));
    }
}

#[test]
fn a_stop_of_what_does_not_work_is_final() {
    let mut dyno = machine(RestartPolicy::Always);
    let fail = Event::Fail {
        healthy: Duration::ZERO,
    };
    let events = [Event::Start, Event::Started, fail, STOP];
    assert_eq!(play(&mut dyno, &events), [Action::Signal(15)]);
    assert_eq!(play(&mut dyno, &[FAILED, Event::Emptied]), [Action::Finish]);
}

#[test]
fn a_second_stop_hastens_and_never_delays() {
    let mut dyno = machine(RestartPolicy::No);
    play(&mut dyno, &[Event::Start, Event::Started, STOP]);
    let due = dyno.deadline().unwrap();
    let stop = |grace| Event::Stop {
        signal: Some(2),
        grace: Some(grace),
    };
    let now = due - Duration::from_secs(5);
    let longer = dyno.step(stop(Duration::from_secs(60)), now, 0);
    assert_eq!(longer, Ok(vec![Action::Signal(2)]));
    assert_eq!(dyno.deadline(), Some(due));
    let at_once = dyno.step(stop(Duration::ZERO), now, 0);
    assert_eq!(at_once, Ok(vec![Action::Signal(2), Action::Kill]));
}

#[test]
fn a_grace_beyond_the_end_of_time_is_no_panic() {
    let mut dyno = machine(RestartPolicy::No);
    let stop = Event::Stop {
        signal: None,
        grace: Some(Duration::MAX),
    };
    assert_eq!(
        play(&mut dyno, &[Event::Start, Event::Started, stop]),
        [Action::Signal(15)]
    );
}

#[test]
fn what_was_never_started_is_killed_by_a_stop() {
    let mut dyno = machine(RestartPolicy::Always);
    assert_eq!(play(&mut dyno, &[STOP]), [Action::Kill]);
    assert_eq!(play(&mut dyno, &[FAILED, Event::Emptied]), [Action::Finish]);
}

#[test]
fn a_stop_during_back_off_ends_it_at_once() {
    let mut dyno = machine(RestartPolicy::Always);
    let events = [Event::Start, Event::Started, FAILED, Event::Emptied, STOP];
    assert_eq!(play(&mut dyno, &events), [Action::Finish]);
}

#[test]
fn a_stop_while_the_group_dies_prevents_the_restart() {
    let mut dyno = machine(RestartPolicy::Always);
    let events = [Event::Start, Event::Started, FAILED, STOP, Event::Emptied];
    assert_eq!(play(&mut dyno, &events), [Action::Finish]);
}

#[test]
fn a_start_during_back_off_does_not_wait() {
    let mut dyno = machine(RestartPolicy::Always);
    let events = [
        Event::Start,
        Event::Started,
        FAILED,
        Event::Emptied,
        Event::Start,
    ];
    assert_eq!(play(&mut dyno, &events), [Action::Launch]);
}

#[test]
fn a_first_start_that_fails_is_final_under_every_policy() {
    for policy in [
        RestartPolicy::No,
        RestartPolicy::Always,
        RestartPolicy::OnFailure { max_retries: None },
    ] {
        let mut dyno = machine(policy);
        let events = [Event::Start, Event::StartFailed];
        assert_eq!(play(&mut dyno, &events), [Action::Finish]);
        assert_eq!(dyno.phase(), Phase::Failed);
    }
}

#[test]
fn a_restart_that_fails_is_tried_again_until_the_policy_gives_up() {
    let mut dyno = machine(RestartPolicy::OnFailure {
        max_retries: Some(2),
    });
    let mut now = Instant::now();
    for event in [Event::Start, Event::Started, FAILED, Event::Emptied] {
        dyno.step(event, now, 0).unwrap();
    }
    for _ in 0..2 {
        now = dyno.deadline().unwrap();
        assert_eq!(dyno.step(Event::Timer, now, 0), Ok(vec![Action::Launch]));
        dyno.step(Event::StartFailed, now, 0).unwrap();
    }
    assert_eq!(dyno.phase(), Phase::Failed);
    assert_eq!(dyno.gave_up_after(), Some(3));
}

#[test]
fn reaching_the_memory_limit_kills_the_whole_group() {
    let mut dyno = machine(RestartPolicy::No);
    let events = [Event::Start, Event::Started, Event::Oom];
    assert_eq!(play(&mut dyno, &events), [Action::Kill]);
}

#[test]
fn requests_that_do_not_fit_are_conflicts() {
    let now = Instant::now();
    let mut dyno = machine(RestartPolicy::No);
    play(&mut dyno, &[Event::Start, Event::Started]);
    assert_eq!(dyno.step(Event::Start, now, 0), Err(Conflict::Started));
    play(&mut dyno, &[STOP]);
    assert_eq!(dyno.step(Event::Start, now, 0), Err(Conflict::Stopping));
    play(&mut dyno, &[FAILED, Event::Emptied]);
    assert_eq!(dyno.step(Event::Start, now, 0), Err(Conflict::Ended));
    assert_eq!(dyno.step(STOP, now, 0), Err(Conflict::Ended));
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        Just(Event::Start),
        Just(Event::Started),
        Just(Event::StartFailed),
        (any::<Option<u8>>(), prop::option::of(0_u64..20_000)).prop_map(|(signal, grace)| {
            Event::Stop {
                signal,
                grace: grace.map(Duration::from_millis),
            }
        }),
        Just(Event::Oom),
        Just(Event::Saved),
        (0_u64..70_000).prop_map(|healthy| Event::Fail {
            healthy: Duration::from_millis(healthy),
        }),
        any::<bool>().prop_map(|success| Event::Exited { success }),
        Just(Event::Emptied),
        Just(Event::Timer),
    ]
}

proptest! {
    /// No order of events, however absurd, makes it finish twice, act after
    /// its end, or start what was stopped.
    #[test]
    fn it_finishes_once_and_never_starts_after_a_stop(
        events in prop::collection::vec((any_event(), 0_u64..70_000), 0..200),
    ) {
        let mut dyno = machine(RestartPolicy::Always);
        let mut now = Instant::now();
        let (mut finished, mut stopped) = (false, false);
        for (event, elapsed) in events {
            now += Duration::from_millis(elapsed);
            let Ok(actions) = dyno.step(event, now, 9) else { continue };
            prop_assert!(!finished || actions.is_empty(), "{actions:?} after the end");
            if stopped {
                prop_assert!(!actions.contains(&Action::Launch));
                prop_assert!(!actions.contains(&Action::Execute));
            }
            stopped |= matches!(event, Event::Stop { .. });
            finished |= actions.contains(&Action::Finish);
            prop_assert_eq!(finished, dyno.phase().is_final());
        }
    }

    /// A deadline that was waited for is gone afterwards: the loop cannot spin.
    #[test]
    fn a_timer_that_came_due_does_not_stay_due(
        events in prop::collection::vec(any_event(), 0..60),
    ) {
        let mut dyno = machine(RestartPolicy::Always);
        let mut now = Instant::now();
        for event in events {
            dyno.step(event, now, 0).ok();
            if let Some(due) = dyno.deadline() {
                now = now.max(due);
                dyno.step(Event::Timer, now, 0).unwrap();
                prop_assert!(dyno.deadline().is_none_or(|next| next > now));
            }
        }
    }
}
