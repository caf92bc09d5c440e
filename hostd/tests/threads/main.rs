//! What stays concurrent in hostd, in many orders of its threads: its own source, with
//! shuttle's locks in the place of those of the machine. Shuttle runs one thread at a time
//! and chooses at each step of a lock who goes on; that nobody can is a deadlock, which
//! fails, as a lock does that its holder takes once more.
//!
//! The orders are from a seed; one that fails is printed, to be played again.
#![expect(clippy::unwrap_used, reason = "a test that fails says so")]

#[path = "../../src/spare/ahead.rs"]
mod ahead;
#[expect(dead_code, reason = "what answers do with them is not tried here")]
#[path = "../../src/http/places.rs"]
mod places;
mod sync;
#[path = "../../src/supervisor/window.rs"]
mod window;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use shuttle::future::{block_on, spawn_local as spawn};
use shuttle::scheduler::PctScheduler;
use shuttle::{Config, Runner, thread};

use ahead::Ahead;
use places::{Guest, Place, Places};
use sync::watch;
use window::Window;

/// Switches between threads that a fault may need to show.
const DEPTH: usize = 3;

/// In many orders, at random and with few switches at the worst places.
fn in_any_order(body: impl Fn() + Send + Sync + Copy + 'static) {
    let orders = match std::env::var_os("DYNO_SOAK") {
        Some(_) => 50_000,
        None => 500,
    };
    shuttle::check_random(body, orders);
    let scheduler = PctScheduler::new(DEPTH, orders);
    Runner::new(scheduler, Config::default()).run(body);
}

/// It was not so once: a stop that was answered while the dyno's next status came held up
/// hostd as a whole.
#[test]
fn whoever_looks_at_a_dyno_twice_holds_up_neither_its_supervisor_nor_others() {
    in_any_order(|| {
        let (sender, shown) = watch::channel(0);
        let window = Window::on(shown);
        let supervisor = thread::spawn(move || {
            (1..=3).for_each(|news| sender.send_replace(news));
        });
        let clients: Vec<_> = (0..2)
            .map(|_| {
                let window = window.clone();
                spawn(async move {
                    let ended = window.until(|state| *state >= 2).await;
                    let later = window.now();
                    assert!(ended.is_some_and(|ended| ended <= later));
                    assert!(window.look(|state| *state >= later));
                })
            })
            .collect();
        supervisor.join().unwrap();
        for client in clients {
            block_on(client).unwrap();
        }
        block_on(async { assert_eq!(window.until(|state| *state > 3).await, None) });
    });
}

#[test]
fn of_monitors_started_ahead_each_is_given_once_and_one_waits_at_the_most() {
    in_any_order(|| {
        let ahead = Arc::new(Ahead::new());
        let made = Arc::new(AtomicUsize::new(0));
        let takers: Vec<_> = (0..3)
            .map(|_| {
                let (ahead, made) = (ahead.clone(), made.clone());
                thread::spawn(move || {
                    let make = || made.fetch_add(1, Ordering::Relaxed);
                    let taken = ahead.take().unwrap_or_else(make);
                    ahead.refill(|| Ok::<_, ()>(make())).unwrap();
                    taken
                })
            })
            .collect();
        let mut given: Vec<usize> = takers.into_iter().map(|it| it.join().unwrap()).collect();
        given.extend(ahead.take());
        assert_eq!(ahead.take(), None);
        given.sort_unstable();
        let all: Vec<usize> = (0..made.load(Ordering::Relaxed)).collect();
        assert_eq!(given, all, "each that was made was given, or waited");
    });
}

/// The fewest places that there are.
const MOST: usize = 32;
/// Of them, those that only the owner gets.
const RESERVE: usize = 16;

/// Places of which all but so many are at work, with those that work.
async fn places_at_work(resting: usize) -> (Arc<Places>, Vec<places::Work>) {
    let places = Places::new(MOST);
    let mut working = Vec::new();
    for _ in 0..MOST - resting {
        let place = places.take(Guest::Owner).await.unwrap();
        working.push(place.work().unwrap());
    }
    (places, working)
}

/// A connection that leaves when it is told to.
async fn rest_until_told(place: Arc<Place>) {
    place.leave().await;
    assert!(place.work().is_none(), "a request begins on what is closed");
}

#[test]
fn who_has_rested_longest_makes_room() {
    in_any_order(|| {
        block_on(async {
            let (places, working) = places_at_work(2).await;
            let first = places.take(Guest::Owner).await.unwrap();
            let second = places.take(Guest::Owner).await.unwrap();
            // It has worked meanwhile: the second one has rested longest.
            drop(first.work().unwrap());
            let leaves = spawn(rest_until_told(second));
            let third = places.take(Guest::Owner).await.unwrap();
            leaves.await.unwrap();
            assert!(first.work().is_some() && third.work().is_some());
            drop((first, third, working));
            assert_all_free(&places).await;
        });
    });
}

#[test]
fn who_works_stays_and_the_owner_has_places_left() {
    in_any_order(|| {
        block_on(async {
            let places = Places::new(MOST);
            let mut working = Vec::new();
            for _ in 0..MOST - RESERVE {
                working.push(places.take(Guest::Other).await.unwrap().work().unwrap());
            }
            let other = {
                let places = places.clone();
                spawn(async move { places.take(Guest::Other).await })
            };
            for _ in 0..RESERVE {
                working.push(places.take(Guest::Owner).await.unwrap().work().unwrap());
            }
            assert!(other.await.unwrap().is_err());
            assert!(places.take(Guest::Owner).await.is_err());
            working.pop();
            drop(places.take(Guest::Owner).await.unwrap());
            drop(working);
            assert_all_free(&places).await;
        });
    });
}

/// It was not so once: whoever came, when all others were at work, had the owner's next
/// connection closed before its request was read, and got no place by that.
#[test]
fn a_connection_of_the_owner_makes_room_for_nobody_else() {
    in_any_order(|| {
        block_on(async {
            let places = Places::new(MOST);
            let mut working = Vec::new();
            for _ in 0..MOST - RESERVE {
                working.push(places.take(Guest::Other).await.unwrap().work().unwrap());
            }
            let comes = || {
                let places = places.clone();
                spawn(async move { places.take(Guest::Other).await })
            };
            let others = [comes(), comes()];
            let owner = places.take(Guest::Owner).await.unwrap();
            let asks = thread::spawn(move || owner.work().is_some());
            for other in others {
                assert!(other.await.unwrap().is_err());
            }
            assert!(asks.join().unwrap());
            drop(working);
            assert_all_free(&places).await;
        });
    });
}

/// Two come while one connection rests, one begins to work and one goes by itself.
#[test]
fn of_those_who_come_at_once_each_gets_a_place_or_is_told_that_there_is_none() {
    in_any_order(|| {
        block_on(async {
            let (places, working) = places_at_work(3).await;
            let resting = places.take(Guest::Owner).await.unwrap();
            let begins = places.take(Guest::Owner).await.unwrap();
            let goes = places.take(Guest::Owner).await.unwrap();
            let rests = spawn(async move { rest_until_told(resting).await });
            let begins = spawn(async move {
                // Told to leave before it begins, it leaves.
                begins.work().map(drop).is_some()
            });
            let goes = thread::spawn(move || drop(goes));
            let came: Vec<_> = (0..2)
                .map(|_| {
                    let places = places.clone();
                    spawn(async move { places.take(Guest::Owner).await })
                })
                .collect();
            let mut kept = Vec::new();
            for guest in came {
                kept.extend(guest.await.unwrap());
            }
            begins.await.unwrap();
            goes.join().unwrap();
            // At least two have left, or are told to.
            assert!(!kept.is_empty());
            // Whoever comes now has the one that rests leave, if it is there still.
            let last = places.take(Guest::Owner).await;
            kept.extend(last);
            drop((kept, working));
            let mut all = Vec::new();
            for _ in 0..MOST {
                all.push(places.take(Guest::Owner).await.unwrap());
            }
            rests.await.unwrap();
            drop(all);
            assert_all_free(&places).await;
        });
    });
}

/// Each place can be had, and nobody is counted as being about to leave.
async fn assert_all_free(places: &Arc<Places>) {
    let mut working = Vec::new();
    for _ in 0..MOST {
        working.push(places.take(Guest::Owner).await.unwrap().work().unwrap());
    }
    assert!(places.take(Guest::Owner).await.is_err());
}
