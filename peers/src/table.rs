//! Turns, and the table of their medians.

use std::time::{Duration, Instant};

use crate::Result;
use crate::plot::bars;

/// How often each contender has its turn.
const ROUNDS: usize = 9;

/// How long a turn is.
const TURN: Duration = Duration::from_millis(300);

/// Gives each of `contenders` its turns, and prints how many things it did in a second. `work` does some for so long, and says how
/// many.
pub(crate) fn rates<C>(
    title: &str,
    unit: &str,
    contenders: &mut [(String, C)],
    mut work: impl FnMut(&mut C, Duration) -> Result<u64>,
) -> Result<()> {
    let mut rates = vec![Vec::new(); contenders.len()];
    for round in 0..=ROUNDS {
        for ((_, contender), rates) in contenders.iter_mut().zip(&mut rates) {
            let began = Instant::now();
            let done = work(contender, TURN)?;
            // The first one warms up.
            if round > 0 {
                rates.push(done as f64 / began.elapsed().as_secs_f64());
            }
        }
    }
    println!(
        "\n### {title}\n\n| | {unit} per second, median of {ROUNDS} | to the first | from – to |\n|---|---|---|---|"
    );
    let rows = rows(contenders, rates);
    for (name, [least, middle, most]) in &rows {
        let ratio = middle / rows[0].1[1];
        println!("| {name} | {middle:.0} | {ratio:.2} | {least:.0} – {most:.0} |");
    }
    bars(title, &format!("{unit} per second"), &rows)
}

/// Something that is done and timed.
pub(crate) type Way<'a> = Box<dyn FnMut() -> Result<()> + 'a>;

/// Does each thing by turns, and prints how long it takes and how much more that is than the first.
pub(crate) fn times(title: &str, ways: &mut [(String, Way<'_>)]) -> Result<()> {
    const TIMES: usize = 31;
    let mut taken = vec![Vec::new(); ways.len()];
    for round in 0..=TIMES {
        for ((_, way), taken) in ways.iter_mut().zip(&mut taken) {
            let began = Instant::now();
            way()?;
            if round > 0 {
                taken.push(began.elapsed().as_secs_f64() * 1000.0);
            }
        }
    }
    println!(
        "\n### {title}\n\n| | ms, median of {TIMES} | more than the first | from – to |\n|---|---|---|---|"
    );
    let rows = rows(ways, taken);
    for (name, [least, middle, most]) in &rows {
        let more = middle - rows[0].1[1];
        println!("| {name} | {middle:.1} | {more:.1} | {least:.1} – {most:.1} |");
    }
    bars(title, "milliseconds", &rows)
}

/// Does something over and over until a turn is over; gives how many things it says that it has done.
pub(crate) fn repeat(turn: Duration, mut work: impl FnMut() -> Result<usize>) -> Result<u64> {
    let (began, mut done) = (Instant::now(), 0);
    while began.elapsed() < turn {
        done += work()? as u64;
    }
    Ok(done)
}

/// Each one's name, and the least, the median and the most of its figures.
fn rows<C>(names: &[(String, C)], figures: Vec<Vec<f64>>) -> Vec<(String, [f64; 3])> {
    let row = |(name, _): &(String, C), mut figures: Vec<f64>| {
        figures.sort_by(f64::total_cmp);
        let middle = figures[figures.len() / 2];
        (name.clone(), [figures[0], middle, figures[figures.len() - 1]])
    };
    names.iter().zip(figures).map(|(name, figures)| row(name, figures)).collect()
}
