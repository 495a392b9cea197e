//! A tool for an agent that runs commands in the background: it starts them, reads their output since where it
//! was, writes to them, and stops them. What it started survives it, and is there for its successor.
//!
//! `cargo run --example background_tool STORE` reads a JSON request from each line of its input, and answers each with a line:
//!
//! ```text
//! {"tool": "start", "command": "make", "timeout": 600}     -> {"id": "…", "state": "running"}
//! {"tool": "poll", "id": "…", "cursor": 0, "wait": 5}      -> {"output": "…", "cursor": 42, "state": "running"}
//! {"tool": "write", "id": "…", "text": "y\n", "end": true} -> {"written": 2}
//! {"tool": "stop", "id": "…"}                              -> {"state": "stopped", "result": "terminated"}
//! {"tool": "list"}                                         -> {"commands": [{"id": "…", "command": "make", …}]}
//! ```

use std::error::Error;
use std::io::{self, BufRead, Write};
use std::time::Duration;

use caesium::engine::LogsRequest;
use caesium::log::LogNext;
use caesium::{
    Atom, AtomId, AtomSpec, Engine, ListRequest, LogItem, OnClose, ProcessEngine, StopRequest,
};
use serde_json::{Value, json};

type Answer = Result<Value, Box<dyn Error>>;

/// How much output one answer has at the most: whoever asks has to think about all of it.
const MOST: usize = 16 << 10;

fn main() -> Result<(), Box<dyn Error>> {
    caesium::init();
    let store = std::env::args().nth(1).ok_or("usage: background_tool STORE")?;
    // What runs goes on when the agent's session ends; its label says what is the tool's.
    let engine = ProcessEngine::options().on_close(OnClose::Leave).serve(true).open(store)?;
    for line in io::stdin().lock().lines() {
        let answer = serde_json::from_str(&line?)
            .map_err(Into::into)
            .and_then(|request| answer(&engine, &request))
            .unwrap_or_else(|error| json!({ "error": error.to_string() }));
        writeln!(io::stdout(), "{answer}")?;
    }
    engine.close()?;
    Ok(())
}

fn answer(engine: &dyn Engine, request: &Value) -> Answer {
    match request["tool"].as_str() {
        Some("start") => start(engine, request),
        Some("poll") => poll(engine, request),
        Some("write") => write(engine, request),
        Some("stop") => {
            let stop = StopRequest::from(id(engine, request)?).grace(Duration::from_secs(3));
            Ok(state(&engine.stop(&stop)?))
        }
        Some("list") => {
            let atoms = engine.list(&ListRequest::all().label("by", "background-tool"))?;
            Ok(json!({ "commands": atoms.iter().map(state).collect::<Vec<_>>() }))
        }
        _ => Err("tool has to be start, poll, write, stop or list".into()),
    }
}

fn start(engine: &dyn Engine, request: &Value) -> Answer {
    let command = request["command"].as_str().ok_or("command is missing")?;
    let mut spec = AtomSpec::command("sh")
        .args(["-c", command])
        .label("by", "background-tool")
        .stdin_pipe()
        .log_max(4 << 20);
    if let Some(seconds) = request["timeout"].as_u64() {
        spec = spec.timeout(Duration::from_secs(seconds));
    }
    // An agent may ask twice, because the answer was lost: with a key it gets the same command again.
    if let Some(key) = request["key"].as_str() {
        spec = spec.key(key);
    }
    Ok(state(&engine.create(spec.into())?))
}

/// The output since the cursor. When there is none yet, waits for it, or for the end.
fn poll(engine: &dyn Engine, request: &Value) -> Answer {
    let id = id(engine, request)?;
    let mut cursor = request["cursor"].as_u64().unwrap_or(0);
    let mut patience = Duration::from_secs(request["wait"].as_u64().unwrap_or(0));
    let mut logs = engine.logs(&LogsRequest::from(id).follow().from_offset(cursor))?;
    let (mut output, mut dropped, mut complete) = (Vec::new(), 0, false);
    while output.len() < MOST {
        match logs.next_timeout(patience)? {
            LogNext::Item(LogItem::Chunk(chunk)) => {
                let bytes = &chunk.bytes[..chunk.bytes.len().min(MOST - output.len())];
                output.extend_from_slice(bytes);
                cursor = chunk.offset + bytes.len() as u64;
                patience = Duration::ZERO;
            }
            LogNext::Item(LogItem::Dropped { bytes }) => dropped += bytes,
            LogNext::End => {
                complete = true;
                break;
            }
            LogNext::TimedOut => break,
        }
    }
    // Its output is complete a moment before its end is journaled.
    let atom = if complete { engine.wait(&id.into())? } else { engine.get(&id.into())? };
    let mut answer = state(&atom);
    answer["output"] = String::from_utf8_lossy(&output).into();
    answer["cursor"] = cursor.into();
    if dropped > 0 {
        answer["dropped"] = dropped.into();
    }
    Ok(answer)
}

fn write(engine: &dyn Engine, request: &Value) -> Answer {
    let id = id(engine, request)?;
    let text = request["text"].as_str().unwrap_or_default().as_bytes();
    // Never longer than this: a command that does not read must not hang the agent.
    let written = match text {
        [] => 0,
        text => engine.stdin(&id.into())?.write_timeout(text, Duration::from_secs(1))?,
    };
    if request["end"] == true {
        engine.close_stdin(&id.into())?;
    }
    Ok(json!({ "written": written }))
}

fn id(engine: &dyn Engine, request: &Value) -> Result<AtomId, Box<dyn Error>> {
    Ok(engine.find(request["id"].as_str().ok_or("id is missing")?)?.id())
}

fn state(atom: &Atom) -> Value {
    json!({
        "id": atom.id().to_string(),
        "command": atom.spec().get_args().last().map(|command| command.to_string_lossy()),
        "state": atom.state().to_string(),
        "result": atom.result().map(|result| result.to_string()),
        "exit_code": atom.exit_code(),
    })
}
