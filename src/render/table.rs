//! Lists in columns without borders. In: headers and rows of plain text. Out: lines no wider than the style allows, the widest
//! columns cut first.

use super::Style;
use super::page::{Ink, clean, middle, width};
use tabled::builder::Builder;
use tabled::settings::{Padding, Style as Border};

const GAP: usize = 3;
/// A column is not cut below this.
const NARROWEST: usize = 6;

pub fn table(rows: &[Vec<String>], headers: &[&str], style: &Style) -> String {
    let mut cells: Vec<Vec<String>> = vec![headers.iter().map(|h| h.to_uppercase()).collect()];
    cells.extend(rows.iter().map(|row| row.iter().map(|cell| clean(cell)).collect()));
    let mut columns: Vec<usize> =
        (0..headers.len()).map(|c| cells.iter().map(|row| row.get(c).map_or(0, |cell| width(cell))).max().unwrap_or(0)).collect();
    let room = style.width.saturating_sub(GAP * headers.len().saturating_sub(1));
    while columns.iter().sum::<usize>() > room {
        let Some(widest) = columns.iter_mut().max().filter(|w| **w > NARROWEST) else {
            break;
        };
        *widest -= 1;
    }
    let mut builder = Builder::default();
    for row in &cells {
        builder.push_record(row.iter().zip(&columns).map(|(cell, room)| middle(cell, *room, style)));
    }
    let mut table = builder.build();
    table.with(Border::empty()).with(Padding::new(0, GAP, 0, 0));
    let mut out = String::new();
    for (number, line) in table.to_string().lines().enumerate() {
        let line = line.trim_end();
        out.push_str(&if number == 0 && style.colour { Ink::Strong.paint(line) } else { line.to_owned() });
        out.push('\n');
    }
    out
}
