//! Plots as SVG that takes its text colour from the page.

use crate::judge::{Estimate, plain};
use crate::leaderboard::{Leaderboard, cost};
use crate::task::{Curve, MetricInfo};
use crate::trial::Trial;
use plotters::prelude::*;

const WIDTH: u32 = 760;

/// Colours that are told apart on light and dark grounds, also by those who see few colours.
const PALETTE: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(160, 120, 0),
    RGBColor(86, 180, 233),
    RGBColor(120, 120, 120),
];

const GRID: RGBAColor = RGBAColor(128, 128, 128, 0.25);
const AXIS: RGBAColor = RGBAColor(128, 128, 128, 0.8);

type Drawn = Result<(), Box<dyn std::error::Error>>;

fn colour(i: usize) -> RGBColor {
    PALETTE[i % PALETTE.len()]
}

/// One picture with a caption; a plot that cannot be drawn (say, of a single value) is left out.
fn figure(height: u32, caption: &str, draw: impl FnOnce(&SVGRoot) -> Drawn) -> String {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        if draw(&root).is_err() || root.present().is_err() {
            return String::new();
        }
    }
    let caption = html_text(caption);
    // Black is the page's text colour, whatever that is; the picture scales with the page.
    let svg = svg.replace("\"#000000\"", "\"currentColor\"").replacen(
        &format!("width=\"{WIDTH}\" height=\"{height}\""),
        &format!("width=\"{WIDTH}\" height=\"{height}\" role=\"img\" aria-label=\"{caption}\""),
        1,
    );
    format!("<figure>{svg}<figcaption>{caption}</figcaption></figure>")
}

type SVGRoot<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

fn html_text(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

/// A range around values with some room on both sides.
fn range(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    let (low, high) = values
        .filter(|v| v.is_finite())
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| {
            (l.min(v), h.max(v))
        });
    if low > high {
        return None;
    }
    let room = if high > low {
        (high - low) * 0.08
    } else {
        low.abs().max(1e-6) * 0.1
    };
    Some((low - room, high + room))
}

/// Every seed as a dot, mean and interval as a bar, a line for each contender.
pub(super) fn seeds(trial: &Trial) -> String {
    let sides = &trial.sides;
    let estimates: Vec<Option<Estimate>> = sides
        .iter()
        .map(|s| Estimate::of(&s.values.values().copied().collect::<Vec<_>>()))
        .collect();
    let shown = sides
        .iter()
        .flat_map(|s| s.values.values().copied())
        .chain(trial.claim.target);
    let Some((low, high)) = range(shown) else {
        return String::new();
    };
    let height = 70 + 34 * sides.len() as u32;
    let caption = format!(
        "{}: one dot a seed; bar: mean and 95 % interval (cut at the edge of the plot)",
        trial.claim.metric
    );
    figure(height, &caption, |root| {
        let mut chart = ChartBuilder::on(root)
            .margin(8)
            .x_label_area_size(30)
            .y_label_area_size(190)
            .build_cartesian_2d(low..high, 0.0..sides.len() as f64)?;
        chart
            .configure_mesh()
            .disable_y_mesh()
            .y_labels(0)
            .x_labels(6)
            .x_label_formatter(&|v| plain(*v))
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID)
            .axis_style(AXIS)
            .label_style(("sans-serif", 13))
            .draw()?;
        if let Some(target) = trial.claim.target {
            let line = [(target, 0.0), (target, sides.len() as f64)];
            chart.draw_series(LineSeries::new(line, AXIS.stroke_width(2)))?;
        }
        for (i, side) in sides.iter().enumerate() {
            let y = (sides.len() - i) as f64 - 0.5;
            let hue = colour(i);
            if let Some(Estimate {
                mean,
                low: Some(from),
                high: Some(to),
            }) = estimates[i]
            {
                let bar = [(from.max(low), y), (to.min(high), y)];
                chart.draw_series(LineSeries::new(bar, hue.stroke_width(2)))?;
                let tick = [(mean, y - 0.28), (mean, y + 0.28)];
                chart.draw_series(LineSeries::new(tick, hue.stroke_width(3)))?;
            }
            let dots = side
                .values
                .values()
                .map(|v| Circle::new((*v, y), 4, hue.mix(0.6).filled()));
            chart.draw_series(dots)?;
            let (_, place) = chart.backend_coord(&(low, y));
            let name: String = side.name.chars().take(28).collect();
            root.draw(&Text::new(
                name,
                (12, place - 8),
                ("sans-serif", 14).into_font(),
            ))?;
        }
        Ok(())
    })
}

/// Curves of one name, a line for each method.
pub(super) fn curves(name: &str, lines: &[(&str, &Curve)]) -> String {
    let points = || lines.iter().flat_map(|(_, c)| c.points.iter());
    let (Some(xs), Some(ys)) = (range(points().map(|p| p.0)), range(points().map(|p| p.1))) else {
        return String::new();
    };
    let (x, y) = lines
        .first()
        .map_or(("", ""), |(_, c)| (&c.x[..], &c.y[..]));
    figure(300, name, |root| {
        let mut chart = ChartBuilder::on(root)
            .margin(8)
            .x_label_area_size(40)
            .y_label_area_size(80)
            .build_cartesian_2d(xs.0..xs.1, ys.0..ys.1)?;
        chart
            .configure_mesh()
            .x_desc(x)
            .y_desc(y)
            .x_labels(8)
            .y_labels(6)
            .x_label_formatter(&|v| plain(*v))
            .y_label_formatter(&|v| plain(*v))
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID)
            .axis_style(AXIS)
            .label_style(("sans-serif", 13))
            .draw()?;
        for (i, (side, curve)) in lines.iter().enumerate() {
            let hue = colour(i);
            chart
                .draw_series(LineSeries::new(
                    curve.points.iter().copied(),
                    hue.stroke_width(2),
                ))?
                .label(*side)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], hue.stroke_width(2)));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperRight)
            .label_font(("sans-serif", 13))
            .draw()?;
        Ok(())
    })
}

/// Quality against cost, a dot for each method; a line joins those on the Pareto front.
pub(super) fn leaderboard(board: &Leaderboard, by: MetricInfo) -> String {
    // Costs of any size but none below zero: a logarithm tells them apart.
    let dots: Vec<(&str, f64, f64, bool)> = board
        .rows
        .iter()
        .filter_map(|r| {
            let quality = r.metrics.get(by.name)?.mean;
            let cost = cost(r, board.against).abs().max(1e-9).log10();
            Some((r.method.as_str(), cost, quality, r.front)).filter(|d| d.1.is_finite())
        })
        .collect();
    let mut edge: Vec<(f64, f64)> = dots.iter().filter(|d| d.3).map(|d| (d.1, d.2)).collect();
    edge.sort_by(|a, b| a.0.total_cmp(&b.0));
    let cost_name = board.against.map_or("seconds", |m| m.name);
    let (Some(xs), Some(ys)) = (
        range(dots.iter().map(|d| d.1)),
        range(dots.iter().map(|d| d.2)),
    ) else {
        return String::new();
    };
    // Room for names to the right of the last dot.
    let right = xs.1 + (xs.1 - xs.0) * 0.3;
    let caption = format!(
        "{} against {cost_name}; the line is the Pareto front",
        by.name
    );
    figure(340, &caption, |root| {
        let mut chart = ChartBuilder::on(root)
            .margin(8)
            .x_label_area_size(40)
            .y_label_area_size(70)
            .build_cartesian_2d(xs.0..right, ys.0..ys.1)?;
        chart
            .configure_mesh()
            .x_desc(format!("{cost_name} (logarithmic)"))
            .y_desc(by.name)
            .x_labels(6)
            .y_labels(6)
            .x_label_formatter(&|v| plain(10f64.powf(*v)))
            .y_label_formatter(&|v| plain(*v))
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID)
            .axis_style(AXIS)
            .label_style(("sans-serif", 13))
            .draw()?;
        chart.draw_series(LineSeries::new(edge.iter().copied(), AXIS.stroke_width(2)))?;
        let mut taken: Vec<Place> = Vec::new();
        for (i, (_, x, y, _)) in dots.iter().enumerate() {
            chart.draw_series([Circle::new((*x, *y), 5, colour(i).filled())])?;
            let at = chart.backend_coord(&(*x, *y));
            taken.push((at.0 - 6, at.1 - 6, 12, 12));
        }
        // Of many, only those on the front are named.
        for (name, x, y, _) in dots.iter().filter(|d| dots.len() <= 16 || d.3) {
            let at = chart.backend_coord(&(*x, *y));
            let (px, py) = free_place(at, name.chars().count() as i32 * 7, &mut taken);
            root.draw(&Text::new(
                (*name).to_owned(),
                (px, py),
                ("sans-serif", 13).into_font(),
            ))?;
        }
        Ok(())
    })
}

/// Left, top, width and height of something drawn.
type Place = (i32, i32, i32, i32);

/// Where a name of this width goes beside a dot so that it covers nothing: to the right, to the left, then higher and
/// lower.
fn free_place(dot: (i32, i32), width: i32, taken: &mut Vec<Place>) -> (i32, i32) {
    const HEIGHT: i32 = 13;
    let apart = |a: &Place, b: &Place| {
        a.0 + a.2 <= b.0 || b.0 + b.2 <= a.0 || a.1 + a.3 <= b.1 || b.1 + b.3 <= a.1
    };
    let candidates = [0, -12, 12, -24, 24, -36, 36]
        .into_iter()
        .flat_map(|shift| {
            let top = dot.1 - 7 + shift;
            [
                (dot.0 + 9, top, width, HEIGHT),
                (dot.0 - 9 - width, top, width, HEIGHT),
            ]
        });
    let best = candidates
        .filter(|c| c.0 > 75)
        .find(|c| taken.iter().all(|t| apart(c, t)))
        .unwrap_or((dot.0 + 9, dot.1 - 7, width, HEIGHT));
    taken.push(best);
    (best.0, best.1)
}
