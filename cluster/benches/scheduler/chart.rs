//! Draws how the time grows: both axes by powers of two, so that what grows as
//! the cluster does is a line of one in one.

use std::fmt::Write;
use std::time::Duration;

/// One size of cluster.
pub(crate) struct Point {
    pub(crate) hosts: u64,
    pub(crate) dynos: u64,
    /// All dynos, from nothing.
    pub(crate) place: Duration,
    /// After the loss of 5 % of the hosts.
    pub(crate) replace: Duration,
}

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 460.0;
const LEFT: f64 = 80.0;
const BOTTOM: f64 = 400.0;
const STEP: f64 = 80.0;

/// The picture, as SVG.
pub(crate) fn draw(points: &[Point]) -> String {
    let first = points
        .first()
        .map_or(1.0, |point| point.replace.as_secs_f64());
    // The highest power of two below everything.
    let floor = first.log2().floor();
    let highest = points
        .last()
        .map_or(1.0, |point| point.place.as_secs_f64())
        .log2()
        .ceil();
    let per_doubling = (BOTTOM - 40.0) / (highest - floor);
    let x = |place: usize| LEFT + 40.0 + STEP * place as f64;
    let y = |seconds: f64| BOTTOM - (seconds.log2() - floor) * per_doubling;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"20\" font-size=\"14\">Time to place a cluster's dynos, one core</text>\n"
    );
    grid(&mut svg, floor, highest, y);
    for (place, point) in points.iter().enumerate() {
        text(
            &mut svg,
            (x(place), BOTTOM + 20.0),
            "middle",
            &point.hosts.to_string(),
        );
        text(
            &mut svg,
            (x(place), BOTTOM + 36.0),
            "middle",
            &thousands(point.dynos),
        );
    }
    text(&mut svg, (LEFT + 8.0, BOTTOM + 20.0), "end", "hosts");
    text(&mut svg, (LEFT + 8.0, BOTTOM + 36.0), "end", "dynos");
    let place: Vec<f64> = points
        .iter()
        .map(|point| point.place.as_secs_f64())
        .collect();
    let replace: Vec<f64> = points
        .iter()
        .map(|point| point.replace.as_secs_f64())
        .collect();
    let linear: Vec<f64> = (0..place.len())
        .map(|n| place[0] * (n as f64).exp2())
        .collect();
    let curves = [
        (&place, "#0b62a4", "", "all, from nothing"),
        (
            &replace,
            "#c4471c",
            "",
            "after the loss of 5 % of the hosts",
        ),
        (
            &linear,
            "#888",
            " stroke-dasharray=\"4 4\"",
            "twice the time for twice the cluster",
        ),
    ];
    for (curve, row) in curves.into_iter().zip(0_u8..) {
        let path: Vec<String> = (0..)
            .zip(curve.0)
            .map(|(n, &v)| format!("{:.1},{:.1}", x(n), y(v)))
            .collect();
        legend(&mut svg, &path.join(" "), curve, row);
    }
    svg.push_str("</svg>\n");
    svg
}

type Curve<'a> = (&'a Vec<f64>, &'a str, &'a str, &'a str);

fn legend(svg: &mut String, path: &str, (_, colour, dash, name): Curve, row: u8) {
    let _ok = writeln!(
        svg,
        "<polyline points=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"{dash}/>"
    );
    let at = 50.0 + 18.0 * f64::from(row);
    line(
        svg,
        (LEFT + 20.0, at - 4.0),
        (LEFT + 50.0, at - 4.0),
        colour,
    );
    text(svg, (LEFT + 58.0, at), "start", name);
}

/// The lines across, each twice the time of the one below.
fn grid(svg: &mut String, floor: f64, highest: f64, y: impl Fn(f64) -> f64) {
    let mut tick = floor;
    while tick <= highest {
        let (seconds, at) = (tick.exp2(), y(tick.exp2()));
        let label = if seconds < 1.0 {
            format!("{:.0} ms", seconds * 1000.0)
        } else {
            format!("{seconds:.0} s")
        };
        line(svg, (LEFT, at), (WIDTH - 40.0, at), "#ddd");
        text(svg, (LEFT - 8.0, at + 4.0), "end", &label);
        tick += 1.0;
    }
}

fn thousands(dynos: u64) -> String {
    if dynos < 1_000_000 {
        format!("{}k", dynos / 1000)
    } else {
        format!("{}M", dynos / 1_000_000)
    }
}

fn line(svg: &mut String, (x1, y1): (f64, f64), (x2, y2): (f64, f64), colour: &str) {
    let _ok = writeln!(
        svg,
        "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"{colour}\"/>"
    );
}

fn text(svg: &mut String, (x, y): (f64, f64), anchor: &str, text: &str) {
    let _ok = writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>"
    );
}
