//! The guide is true: each of its programs is here, word for word, and runs.
//!
//! A program with a `main` of its own, as a host has, so that it can be its own keeper.

#![cfg(target_os = "linux")]

use caesium::{Engine, ProcessEngine};

/// A store of its own for each.
fn with_engine(show: impl FnOnce(&dyn Engine) -> Result<(), caesium::Error>) {
    let dir = tempfile::tempdir().unwrap();
    let engine = ProcessEngine::open(dir.path().join("store")).unwrap();
    show(&engine).unwrap();
    engine.close().unwrap();
}

fn with_store(show: impl FnOnce(&std::path::Path) -> Result<(), caesium::Error>) {
    let dir = tempfile::tempdir().unwrap();
    show(&dir.path().join("store")).unwrap();
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// Whitespace, and the commas that come and go with it, say nothing.
fn bare(text: &str) -> String {
    text.chars().filter(|c| !c.is_whitespace() && *c != ',').collect()
}

fn every_block_of_these_pages_is_here() {
    let here = bare(include_str!("guide.rs"));
    for (page, text) in [
        ("guide.md", include_str!("../docs/guide.md")),
        ("coming-from.md", include_str!("../docs/coming-from.md")),
    ] {
        let blocks: Vec<&str> = text.split("```rust\n").skip(1).collect();
        assert!(!blocks.is_empty());
        for block in blocks {
            let (block, _) = block.split_once("```").unwrap();
            assert!(
                here.contains(&bare(block)),
                "of {page}, this is not in tests/guide.rs:\n{block}"
            );
        }
    }
}

mod program {
    use caesium::{AtomSpec, Engine, Outcome, ProcessEngine};

    fn main() -> Result<(), caesium::Error> {
        caesium::init();
        let directory = std::env::temp_dir().join(format!("guide-{}", std::process::id()));
        let engine = ProcessEngine::open(&directory)?;
        let spec = AtomSpec::command("sh").args(["-c", "echo hello"]);
        let atom = engine.create(spec.into())?;
        let atom = engine.wait(&atom.id().into())?;
        assert_eq!(atom.result(), Some(Outcome::Success));
        engine.close()?;
        std::fs::remove_dir_all(&directory).expect("nobody has it open");
        Ok(())
    }

    pub(crate) fn runs() {
        main().unwrap();
    }
}

mod endings {
    use caesium::{AtomSpec, Engine, Error, Outcome, Reason};

    fn endings(engine: &dyn Engine) -> Result<(), Error> {
        let run = |command: &str| {
            let atom = engine.create(AtomSpec::command("sh").args(["-c", command]).into())?;
            engine.wait(&atom.id().into())
        };
        let failed = run("exit 3")?;
        assert_eq!((failed.result(), failed.exit_code()), (Some(Outcome::Failure), Some(3)));
        let crashed = run("kill -SEGV $$")?;
        assert_eq!(
            (crashed.result(), crashed.reason()),
            (Some(Outcome::Failure), Some(Reason::Crashed))
        );
        let missing = engine.create(AtomSpec::command("no-such-program").into())?;
        assert_eq!(missing.result(), Some(Outcome::StartupFailure));
        assert_eq!(missing.reason(), Some(Reason::ExecNotFound));
        println!("{}", missing.detail().unwrap_or_default());
        Ok(())
    }

    pub(crate) fn runs() {
        crate::with_engine(endings);
    }
}

mod output {
    use caesium::engine::LogsRequest;
    use caesium::{AtomSpec, Engine, Error, LogItem, Stream};

    fn output(engine: &dyn Engine) -> Result<(), Error> {
        let spec = AtomSpec::command("sh").args(["-c", "echo one; echo oops >&2; echo two"]);
        // With a reader from the first byte on, for which nothing is dropped.
        let (atom, logs) = engine.create_followed(spec.into())?;
        for item in logs {
            match item? {
                LogItem::Chunk(chunk) if chunk.stream == Stream::Stderr => {
                    eprint!("{}", String::from_utf8_lossy(&chunk.bytes));
                }
                LogItem::Chunk(chunk) => print!("{}", String::from_utf8_lossy(&chunk.bytes)),
                LogItem::Dropped { bytes } => eprintln!("({bytes} bytes were not kept)"),
            }
        }
        // Or afterwards, all of it; or from where one has come to.
        let all = engine.logs(&LogsRequest::from(atom.id()).stream(Stream::Stdout))?;
        assert_eq!(all.read_to_end()?, b"one\ntwo\n");
        Ok(())
    }

    pub(crate) fn runs() {
        crate::with_engine(output);
    }
}

mod ending {
    use std::time::Duration;

    use caesium::engine::{StopRequest, WaitRequest};
    use caesium::{AtomSpec, Engine, Error, Outcome, Reason};

    fn ending(engine: &dyn Engine) -> Result<(), Error> {
        let server = engine.create(AtomSpec::command("sleep").arg("3600").into())?;
        // Waiting may have an end too; the atom goes on.
        let patience = WaitRequest::from(server.id()).timeout(Duration::from_millis(10));
        assert!(matches!(engine.wait(&patience), Err(Error::TimedOut { .. })));
        let stop = StopRequest::from(server.id()).grace(Duration::from_secs(2));
        assert_eq!(engine.stop(&stop)?.result(), Some(Outcome::Terminated));

        let spec = AtomSpec::command("sleep").arg("3600").timeout(Duration::from_millis(50));
        let late = engine.create(spec.into())?;
        assert_eq!(engine.wait(&late.id().into())?.reason(), Some(Reason::Deadline));
        Ok(())
    }

    pub(crate) fn runs() {
        crate::with_engine(ending);
    }
}

mod input {
    use std::io::Write;
    use std::time::Duration;

    use caesium::{AtomSpec, Engine, Error};

    fn input(engine: &dyn Engine) -> Result<(), Error> {
        let atom = engine.create(AtomSpec::command("sort").stdin_pipe().into())?;
        let mut stdin = engine.stdin(&atom.id().into())?;
        stdin.write_all(b"pear\napple\n").expect("sort reads");
        // One that may not read is never waited for longer than this.
        match stdin.write_timeout(b"fig\n", Duration::from_secs(1)) {
            Ok(written) => assert_eq!(written, 4),
            Err(Error::StdinFull(_)) => println!("it does not read"),
            Err(Error::StdinClosed(_)) => println!("it wants no more"),
            Err(error) => return Err(error),
        }
        // The end is said; dropping the writer says nothing.
        engine.close_stdin(&atom.id().into())?;
        engine.wait(&atom.id().into())?;
        assert_eq!(engine.logs(&atom.id().into())?.read_to_end()?, b"apple\nfig\npear\n");
        Ok(())
    }

    pub(crate) fn runs() {
        crate::with_engine(input);
    }
}

mod finding {
    use caesium::engine::DeleteRequest;
    use caesium::{AtomSpec, Engine, Error, ListRequest, Outcome};

    fn finding(engine: &dyn Engine) -> Result<(), Error> {
        let build =
            || AtomSpec::command("true").name("build-7").label("team", "infra").key("build-7");
        let atom = engine.create(build().into())?;
        assert_eq!(engine.create(build().into())?.id(), atom.id(), "not another one");
        engine.wait(&atom.id().into())?;

        assert_eq!(engine.find("build-7")?.id(), atom.id());
        let done = ListRequest::all().label("team", "infra").outcome(Outcome::Success);
        assert_eq!(engine.list(&done)?.len(), 1);
        // With its output; what happened to it stays in the journal.
        engine.delete(&DeleteRequest::from(atom.id()))?;
        assert!(matches!(engine.find("build-7"), Err(Error::NotFound(_))));
        Ok(())
    }

    pub(crate) fn runs() {
        crate::with_engine(finding);
    }
}

mod many {
    use caesium::{AtomSpec, CreateRequest, Engine, Error, Outcome, WaitManyRequest};

    fn many(engine: &dyn Engine) -> Result<(), Error> {
        let request = |n: u32| {
            let script = format!("exit {}", n % 2);
            CreateRequest::from(AtomSpec::command("sh").args(["-c".to_owned(), script]))
        };
        // One commit for all of them. Each has a result of its own.
        let mut ids = Vec::new();
        for created in engine.create_many((0..10).map(request).collect())? {
            ids.push(created?.id());
        }
        let first = engine.wait_any(&WaitManyRequest::from(ids.clone()))?;
        println!("{} was first", first.id());
        let all = engine.wait_all(&WaitManyRequest::from(ids))?;
        let good = all.iter().filter(|atom| atom.result() == Some(Outcome::Success));
        assert_eq!(good.count(), 5);
        Ok(())
    }

    pub(crate) fn runs() {
        crate::with_engine(many);
    }
}

mod retries {
    use std::time::Duration;

    use caesium::lifecycle::Backoff;
    use caesium::{AtomSpec, Engine, Error, RetryPolicy};

    fn retries(engine: &dyn Engine) -> Result<(), Error> {
        let policy = RetryPolicy {
            max_attempts: 3,
            backoff: Backoff { initial: Duration::from_millis(10), ..Backoff::default() },
            ..RetryPolicy::default()
        };
        let mut journal = engine.subscribe(engine.durable_seq()? + 1);
        let first = engine.create(AtomSpec::command("false").name("flaky").retry(policy).into())?;
        // Each retry is an atom of its own, which points at the one before it and has its name.
        let mut attempts = vec![first.id()];
        while attempts.len() < 3 {
            let event = journal.next(None)?.ok_or(Error::Closed)?;
            if event.event_name() == "created" && event.atom != first.id() {
                attempts.push(event.atom);
            }
        }
        let last = engine.wait(&attempts[2].into())?;
        assert_eq!((last.attempt(), last.retry_of()), (3, Some(attempts[1])));
        assert_eq!(last.name(), Some("flaky"));
        Ok(())
    }

    pub(crate) fn runs() {
        crate::with_engine(retries);
    }
}

mod restarts {
    use std::path::Path;

    use caesium::{AtomSpec, Engine, Error, OnClose, Outcome, ProcessEngine};

    fn restarts(store: &Path) -> Result<(), Error> {
        let host = ProcessEngine::options().on_close(OnClose::Leave).open(store)?;
        let spec = AtomSpec::command("sh").args(["-c", "sleep 0.1; echo done"]).key("the-job");
        let atom = host.create(spec.clone().into())?;
        // Politely, or by SIGKILL: for the atom it is the same.
        host.close()?;

        let host = ProcessEngine::open(store)?;
        // Whoever does not know how far it had come asks once more, with the same key.
        let same = host.create(spec.into())?;
        assert_eq!(same.id(), atom.id());
        let atom = host.wait(&same.id().into())?;
        println!("{:?}, {:?}", atom.result(), host.logs(&atom.id().into())?.read_to_end()?);
        assert_ne!(atom.result(), None::<Outcome>);
        host.close()
    }

    pub(crate) fn runs() {
        crate::with_store(restarts);
    }
}

mod shared {
    use std::path::Path;

    use caesium::{AtomSpec, Engine, Error, ListRequest, ProcessEngine};

    fn shared(store: &Path) -> Result<(), Error> {
        let holder = ProcessEngine::options().serve(true).open(store)?;
        // As another process would.
        let other = caesium::connect_or_open(store)?;
        let atom = other.create(AtomSpec::command("true").into())?;
        assert!(holder.list(&ListRequest::all())?.iter().any(|listed| listed.id() == atom.id()));
        holder.close()
    }

    pub(crate) fn runs() {
        crate::with_store(shared);
    }
}

mod asynchronously {
    use std::sync::Arc;

    use caesium::{AtomSpec, Engine, Error, Outcome};
    use tokio::task::spawn_blocking;

    async fn asynchronously(engine: Arc<dyn Engine>) -> Result<(), Error> {
        let creating = Arc::clone(&engine);
        let spec = AtomSpec::command("sleep").arg("0.05");
        let atom =
            spawn_blocking(move || creating.create(spec.into())).await.expect("it returns")?;
        // No thread waits here. Dropping the future ends the waiting, and nothing else.
        let atom = engine.wait_async(atom.id()).await?;
        assert_eq!(atom.result(), Some(Outcome::Success));
        Ok(())
    }

    pub(crate) fn runs() {
        let dir = tempfile::tempdir().unwrap();
        let engine = caesium::ProcessEngine::open(dir.path().join("store")).unwrap();
        crate::block_on(asynchronously(Arc::new(engine.clone()))).unwrap();
        engine.close().unwrap();
    }
}

mod bounds {
    use std::time::Duration;

    use caesium::atom::Limits;
    use caesium::{AtomSpec, Engine, Error};

    fn bounds(engine: &dyn Engine) -> Result<(), Error> {
        let limits = Limits { memory: Some(256 << 20), pids: Some(64), ..Limits::default() };
        let spec = AtomSpec::command("make")
            .env("JOBS", "4")
            .secret_env("TOKEN", "hush")
            .timeout(Duration::from_secs(600))
            .log_max(1 << 20)
            .limits(limits)
            .nice(10)
            .no_new_privs(true);
        // A limit that cannot be set here is a startup failure that says so; nothing runs without it.
        let atom = engine.create(spec.into())?;
        println!("{:?}: {:?}", atom.state(), atom.detail());
        Ok(())
    }

    pub(crate) fn runs() {
        crate::with_engine(bounds);
    }
}

mod in_memory {
    use caesium::driver::memory::{Act, MemoryDriver, World};
    use caesium::lifecycle::WaitStatus;
    use caesium::{Engine, Error, JournaledEngine, Outcome};

    fn in_memory() -> Result<(), Error> {
        let world = World::new();
        let engine = JournaledEngine::in_memory(MemoryDriver::new(world.clone()))?;
        let atom = engine.create(Act::Linger.spec().into())?;
        world.end(atom.id(), WaitStatus::Exited { code: 1 });
        assert_eq!(engine.wait(&atom.id().into())?.result(), Some(Outcome::Failure));
        engine.close()
    }

    pub(crate) fn runs() {
        in_memory().unwrap();
    }
}

mod worker {
    use std::time::Duration;

    use caesium::{AtomSpec, Engine, Error, RetryPolicy};

    fn worker(engine: &dyn Engine) -> Result<(), Error> {
        let spec = AtomSpec::command("./worker")
            .env("QUEUE", "mail")
            .name("worker")
            .key("worker")
            .timeout(Duration::from_secs(600))
            .retry(RetryPolicy { max_attempts: 3, ..RetryPolicy::default() });
        // After a crash this program starts again and asks again: with the key, the worker that runs is what it gets.
        let atom = engine.create(spec.into())?;
        let atom = engine.wait(&atom.id().into())?;
        println!("{:?} {:?}", atom.result(), atom.exit_code());
        println!("{}", String::from_utf8_lossy(&engine.logs(&atom.id().into())?.read_to_end()?));
        Ok(())
    }

    pub(crate) fn runs() {
        crate::with_engine(worker);
    }
}

mod worker_of_tokio {
    use std::process::{ExitStatus, Stdio};
    use std::time::Duration;

    use tokio::process::Command;
    use tokio::time::timeout;

    async fn worker_of_tokio() -> std::io::Result<Option<ExitStatus>> {
        let mut last = None;
        for _attempt in 0..3 {
            let out = std::fs::File::create("worker.log")?;
            let mut child = Command::new("./worker")
                .env("QUEUE", "mail")
                .stderr(out.try_clone()?)
                .stdout(out)
                .stdin(Stdio::null())
                .process_group(0)
                .kill_on_drop(true)
                .spawn()?;
            match timeout(Duration::from_secs(600), child.wait()).await {
                Ok(status) => last = Some(status?),
                // The worker itself. What it has started lives on, unless one signals the group, and then what has left that.
                Err(_late) => child.kill().await?,
            }
            if last.is_some_and(|status| status.success()) {
                break;
            }
        }
        Ok(last)
    }

    pub(crate) fn runs() {
        // There is no such worker here.
        let error = crate::block_on(worker_of_tokio()).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
    }
}

/// What is run: all of it, or what has a word of the command line in its name.
const ALL: &[(&str, fn())] = &[
    ("every_block_of_these_pages_is_here", every_block_of_these_pages_is_here),
    ("program", program::runs),
    ("endings", endings::runs),
    ("output", output::runs),
    ("ending", ending::runs),
    ("input", input::runs),
    ("finding", finding::runs),
    ("many", many::runs),
    ("retries", retries::runs),
    ("restarts", restarts::runs),
    ("shared", shared::runs),
    ("asynchronously", asynchronously::runs),
    ("bounds", bounds::runs),
    ("in_memory", in_memory::runs),
    ("worker", worker::runs),
    ("worker_of_tokio", worker_of_tokio::runs),
];

fn main() {
    caesium::init();
    // What they write into the directory that they run in goes with it.
    let dir = tempfile::tempdir().unwrap();
    std::env::set_current_dir(&dir).unwrap();
    let words: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    for (name, run) in ALL {
        if words.is_empty() || words.iter().any(|word| name.contains(word.as_str())) {
            run();
            println!("test {name} ... ok");
        }
    }
}
