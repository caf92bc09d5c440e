//! The requests that the API was asked: how many, how they ended, how long they took.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http::{Method, StatusCode};

use super::page::{Kind, Page};

/// Upper bounds of the histogram, in milliseconds, and as a label says them in seconds.
const BOUNDS: [(u64, &str); 9] = [
    (1, "0.001"),
    (5, "0.005"),
    (25, "0.025"),
    (100, "0.1"),
    (250, "0.25"),
    (1_000, "1.0"),
    (5_000, "5.0"),
    (30_000, "30.0"),
    (120_000, "120.0"),
];

/// What a request was answered with. `None` where its client left before.
const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

/// Counts of the API's requests. Their labels are bounded by the routes that there are.
#[derive(Debug, Default)]
pub struct Requests {
    in_flight: AtomicU64,
    counts: Mutex<BTreeMap<(String, &'static str), Counts>>,
}

#[derive(Debug, Default, Clone)]
struct Counts {
    classes: [u64; CLASSES.len()],
    buckets: [u64; BOUNDS.len()],
    sum: Duration,
}

/// A request that is being served; counted when it is dropped.
#[derive(Debug)]
pub struct InFlight<'a> {
    requests: &'a Requests,
    route: String,
    method: &'static str,
    begin: Instant,
    status: Option<StatusCode>,
}

impl Requests {
    /// A request begins. `route` is a template, never what a client wrote.
    pub fn begin(&self, route: &str, method: &Method) -> InFlight<'_> {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight {
            requests: self,
            route: route.to_owned(),
            method: bounded(method),
            begin: Instant::now(),
            status: None,
        }
    }

    /// Writes all of it.
    pub fn write(&self, page: &mut Page) {
        let counts = self.counts().clone();
        let mut family = page.family(
            "dyno_api_requests",
            Kind::Counter,
            "Requests to the API, by class of their answer's status; none where the client left before it.",
        );
        for ((route, method), counts) in &counts {
            for (class, count) in CLASSES.iter().zip(counts.classes) {
                if count > 0 {
                    let labels = [("method", *method), ("route", route), ("status", class)];
                    family.sample(&labels, count);
                }
            }
        }
        let mut family = page.family(
            "dyno_api_request_duration_seconds",
            Kind::Histogram,
            "Time until a request's answer begins; streams go on after that.",
        );
        for ((route, method), counts) in &counts {
            let mut below = 0;
            let buckets = BOUNDS.iter().zip(counts.buckets).map(|((_, bound), own)| {
                below += own;
                (*bound, below)
            });
            let count = counts.classes.iter().sum();
            let labels = [("method", *method), ("route", route)];
            family.histogram(&labels, buckets, counts.sum.as_secs_f64(), count);
        }
        page.single(
            "dyno_api_requests_in_flight",
            Kind::Gauge,
            "Requests whose answer has not begun.",
            Some(self.in_flight.load(Ordering::Relaxed)),
        );
    }

    fn counts(&self) -> MutexGuard<'_, BTreeMap<(String, &'static str), Counts>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl InFlight<'_> {
    /// It is answered.
    pub fn answered(mut self, status: StatusCode) {
        self.status = Some(status);
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.requests.in_flight.fetch_sub(1, Ordering::Relaxed);
        let took = self.begin.elapsed();
        let class = self.status.map_or(0, |status| status.as_u16() / 100);
        let mut counts = self.requests.counts();
        let counts = counts
            .entry((std::mem::take(&mut self.route), self.method))
            .or_default();
        if let Some(count) = counts.classes.get_mut(usize::from(class)) {
            *count += 1;
        }
        let mut bounds = BOUNDS.iter();
        let bucket = bounds.position(|(bound, _)| took <= Duration::from_millis(*bound));
        if let Some(bucket) = bucket.and_then(|at| counts.buckets.get_mut(at)) {
            *bucket += 1;
        }
        counts.sum += took;
    }
}

/// P15: a client may make up any method.
fn bounded(method: &Method) -> &'static str {
    let known = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"];
    let known = known.into_iter().find(|known| method == *known);
    known.unwrap_or("other")
}

#[cfg(test)]
mod tests {
    use super::super::check::parse;
    use super::super::page::Format;
    use super::*;

    #[test]
    fn each_request_is_counted_once_however_it_ends() {
        let requests = Requests::default();
        let begin = |method: &str| requests.begin("/v1/x", &method.parse().unwrap());
        begin("GET").answered(StatusCode::OK);
        begin("GET").answered(StatusCode::NOT_FOUND);
        drop(begin("GET"));
        begin("BREW").answered(StatusCode::OK);
        begin("WHISK").answered(StatusCode::OK);
        let open = begin("GET");
        let mut page = Page::new(Format::Text);
        requests.write(&mut page);
        drop(open);
        let samples = parse(&page.finish(), false).unwrap();
        let value = |name: &str, method: &str, more: Option<(&str, &str)>| {
            let found = samples.iter().find(|sample| {
                sample.name == name
                    && sample.label("method") == Some(method)
                    && more.is_none_or(|(name, value)| sample.label(name) == Some(value))
            });
            found.map(|sample| sample.value)
        };
        let total = "dyno_api_requests_total";
        assert_eq!(value(total, "GET", Some(("status", "2xx"))), Some(1.0));
        assert_eq!(value(total, "GET", Some(("status", "4xx"))), Some(1.0));
        assert_eq!(value(total, "GET", Some(("status", "none"))), Some(1.0));
        assert_eq!(value(total, "other", Some(("status", "2xx"))), Some(2.0));
        let histogram = "dyno_api_request_duration_seconds";
        assert_eq!(value(&format!("{histogram}_count"), "GET", None), Some(3.0));
        let bucket = format!("{histogram}_bucket");
        assert_eq!(value(&bucket, "GET", Some(("le", "+Inf"))), Some(3.0));
        let flying = samples
            .iter()
            .find(|sample| sample.name == "dyno_api_requests_in_flight");
        assert_eq!(flying.unwrap().value, 1.0);
    }
}
