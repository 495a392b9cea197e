//! A table as a picture, where `CAESIUM_PLOTS` names a directory.

use std::path::Path;

use plotters::prelude::*;

use crate::Result;

/// Draws a bar for each row: its median, and a line from the least to the most.
pub(crate) fn bars(title: &str, unit: &str, rows: &[(String, [f64; 3])]) -> Result<()> {
    let Some(dir) = std::env::var_os("CAESIUM_PLOTS") else { return Ok(()) };
    let name: String = title
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' })
        .collect();
    let name = name.split('-').filter(|part| !part.is_empty()).collect::<Vec<_>>().join("-");
    let path = Path::new(&dir).join(format!("{name}.svg"));
    let most = rows.iter().map(|(_, [.., most])| *most).fold(0.0, f64::max) * 1.05;
    let (width, bar, left, top) = (860_i32, 34_i32, 330_i32, 48_i32);
    let height = top + bar * rows.len() as i32 + 12;
    let area = SVGBackend::new(&path, (width as u32, height as u32)).into_drawing_area();
    area.fill(&WHITE)?;
    let text = |size: i32| ("sans-serif", size).into_font().color(&BLACK);
    area.draw(&Text::new(format!("{title}: {unit}"), (12, 14), text(16)))?;
    let x = |value: f64| left + (value / most * f64::from(width - left - 90)) as i32;
    for (at, (name, [least, median, most])) in (0..).zip(rows) {
        let y = top + bar * at;
        let color =
            if name.contains("caesium") { RGBColor(32, 96, 160) } else { RGBColor(170, 170, 170) };
        area.draw(&Text::new(name.clone(), (12, y + 7), text(13)))?;
        area.draw(&Rectangle::new([(left, y + 4), (x(*median), y + bar - 8)], color.filled()))?;
        let middle = y + bar / 2 - 2;
        area.draw(&PathElement::new([(x(*least), middle), (x(*most), middle)], BLACK))?;
        let digits = if *median < 100.0 { 1 } else { 0 };
        area.draw(&Text::new(format!("{median:.digits$}"), (x(*most) + 6, y + 7), text(13)))?;
    }
    Ok(area.present()?)
}
