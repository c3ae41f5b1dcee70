//! What all pictures have in common: colours, text, title and origin.

use crate::report::Report;
use anyhow::{Result, anyhow};
use plotters::backend::{DrawingBackend, SVGBackend};
use plotters::coord::Shift;
use plotters::drawing::{DrawingArea, IntoDrawingArea};
use plotters::element::Text;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, FontDesc, FontStyle, IntoFont, RGBColor, TextStyle, WHITE};

/// Everything is drawn on this.
pub(super) type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// A picture: what its file is called and its content.
pub(super) struct Picture {
    pub(super) name: String,
    pub(super) svg: String,
}

/// Pixels.
pub(super) const WIDTH: u32 = 860;

/// Room for the title above, and for where the numbers come from below.
pub(super) const TOP: i32 = 50;

pub(super) const BOTTOM: i32 = 26;

pub(super) const INK: RGBColor = RGBColor(0x24, 0x29, 0x2f);

pub(super) const FAINT: RGBColor = RGBColor(0x6e, 0x77, 0x81);

pub(super) const GRID: RGBColor = RGBColor(0xe3, 0xe7, 0xeb);

/// The extension, then its peers.
pub(super) const COLOURS: [RGBColor; 6] = [
    RGBColor(0x1f, 0x6f, 0xeb),
    RGBColor(0xe3, 0x6d, 0x09),
    RGBColor(0x6f, 0x42, 0xc1),
    RGBColor(0x2d, 0x8a, 0x4e),
    RGBColor(0xb0, 0x24, 0x5c),
    RGBColor(0x57, 0x60, 0x6a),
];

/// What the extension is called in results.
pub(super) const OURS: &str = "pg_enough";

/// A picture of `height` pixels with a title and, below, where its numbers come from; `content` draws the rest.
pub(super) fn picture(
    report: &Report,
    name: String,
    (title, conditions): (&str, &str),
    height: i32,
    content: impl FnOnce(&Area<'_>) -> Result<()>,
) -> Result<Picture> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (WIDTH, height.cast_unsigned())).into_drawing_area();
        done(area.fill(&WHITE))?;
        write(&area, title, (20, 20), &bold(17, INK))?;
        write(&area, conditions, (20, 40), &text(13, FAINT))?;
        write(&area, &origin(report), (20, height - 12), &text(11, FAINT))?;
        content(&area)?;
        done(area.present())?;
    }
    Ok(Picture { name, svg })
}

/// Where the numbers come from.
pub(super) fn origin(report: &Report) -> String {
    let here = &report.environment;
    let day = here.at.split('T').next().unwrap_or_default();
    let version = here.versions.get("PostgreSQL").map_or("", String::as_str);
    let version = version.split(' ').next().unwrap_or_default();
    let (processor, processors) = (&here.machine.processor, here.machine.processors);
    format!("PostgreSQL {version}, {processor}, {processors} processors, {day}. cargo xtask bench {}", report.suite)
}

/// What a drawing operation came to, in this crate's errors.
pub(super) fn done<T, E: std::error::Error + Send + Sync>(
    outcome: Result<T, plotters::drawing::DrawingAreaErrorKind<E>>,
) -> Result<T> {
    outcome.map_err(|error| anyhow!("can't draw: {error}"))
}

/// Text whose place is its left end, at half of its height.
pub(super) fn text(size: u32, colour: RGBColor) -> TextStyle<'static> {
    styled(("sans-serif", size).into_font(), colour)
}

pub(super) fn bold(size: u32, colour: RGBColor) -> TextStyle<'static> {
    styled(("sans-serif", size).into_font().style(FontStyle::Bold), colour)
}

pub(super) fn styled(font: FontDesc<'static>, colour: RGBColor) -> TextStyle<'static> {
    let place = Pos::new(HPos::Left, VPos::Center);
    TextStyle { color: colour.to_backend_color(), ..TextStyle::from(font).pos(place) }
}

/// The same, by its right end.
pub(super) fn to_the_left(style: &TextStyle<'static>) -> TextStyle<'static> {
    style.pos(Pos::new(HPos::Right, VPos::Center))
}

pub(super) fn write<B: DrawingBackend>(
    area: &DrawingArea<B, Shift>,
    what: &str,
    place: (i32, i32),
    style: &TextStyle<'static>,
) -> Result<()>
where
    B::ErrorType: Send + Sync,
{
    done(area.draw(&Text::new(what.to_owned(), place, style.clone())))
}

/// A name for a file.
pub(super) fn slug(text: &str) -> String {
    let mut slug = String::new();
    for part in text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|part| !part.is_empty()) {
        if !slug.is_empty() {
            slug.push('-');
        }
        slug.push_str(&part.to_ascii_lowercase());
    }
    slug
}

/// A number in few characters: `48.9k`, `1.2M`, `0.25`.
pub(super) fn short(value: f64) -> String {
    let (value, unit) = match value.abs() {
        1e9.. => (value / 1e9, "G"),
        1e6.. => (value / 1e6, "M"),
        1e3.. => (value / 1e3, "k"),
        _ => (value, ""),
    };
    let digits = match value.abs() {
        100.0.. => 0,
        10.0.. => 1,
        1.0.. => 2,
        _ => 3,
    };
    let text = format!("{value:.digits$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{unit}")
}
