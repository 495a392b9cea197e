//! A driver of one's own: atoms that are jobs of this program, each on a thread, journaled and stopped as processes are.
//!
//! `cargo run --example custom_driver`. A driver has to start, stop, find again and remove; all else (states, journal, retries,
//! waiting, the control socket) comes with the engine. `caesium::engine::conformance` (feature
//! `test-util`) is what a driver for use has to pass: this one cannot find anything again after a crash, and says so.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::time::Duration;

use caesium::driver::{
    Command, Driver, DriverError, Observation, Observer, Order, Sighting, Surroundings,
};
use caesium::engine::StopRequest;
use caesium::lifecycle::{Evidence, Reason, StopCause, WaitStatus};
use caesium::log::{LogQuery, LogSource};
use caesium::{Atom, AtomId, AtomSpec, Clock, Engine, Error, JournaledEngine, Timestamp};

/// Waits for as many milliseconds as its first argument says, or until it is to stop. Whether it came to its end.
type Job = fn(args: &[String], stop: &mpsc::Receiver<()>) -> bool;

#[derive(Default)]
struct Jobs {
    observer: OnceLock<Arc<Observer>>,
    /// What says to a job that it is to stop.
    running: Arc<Mutex<HashMap<AtomId, mpsc::Sender<()>>>>,
}

fn now() -> Timestamp {
    Clock::default().now()
}

fn pause(args: &[String], stop: &mpsc::Receiver<()>) -> bool {
    let time = args.first().and_then(|arg| arg.parse().ok()).unwrap_or(0);
    stop.recv_timeout(Duration::from_millis(time)) == Err(mpsc::RecvTimeoutError::Timeout)
}

impl Jobs {
    fn tell(&self, observation: Observation) {
        if let Some(observer) = self.observer.get() {
            observer(observation);
        }
    }

    fn start_job(&self, order: &Order) {
        let (atom, at) = (order.atom, now());
        let job: Job = match order.spec.get_program().to_str() {
            Some("pause") => pause,
            Some(_) | None => {
                let (reason, detail) = (Reason::ExecNotFound, "there is no such job".to_owned());
                return self.tell(Observation::StartFailed { atom, at, reason, detail });
            }
        };
        let args: Vec<String> =
            order.spec.get_args().map(|arg| arg.to_string_lossy().into()).collect();
        let (stop, stopped) = mpsc::channel();
        self.running.lock().unwrap().insert(atom, stop);
        // Nothing to find it again by: it ends with this program.
        self.tell(Observation::Started { atom, at, pid: None, handle: Arc::from([]) });
        let (running, observer) = (Arc::clone(&self.running), self.observer.get().cloned());
        std::thread::spawn(move || {
            let complete = job(&args, &stopped);
            running.lock().unwrap().remove(&atom);
            let mut evidence = Evidence::default();
            // It heard that it was to end, as a process hears SIGTERM.
            (evidence.term_reached, evidence.cause) =
                (!complete, (!complete).then_some(StopCause::Requested));
            let status = WaitStatus::Exited { code: u8::from(!complete) };
            let (at, usage, left_behind) = (now(), None, None);
            if let Some(observer) = observer {
                observer(Observation::Exited { atom, at, status, evidence, usage, left_behind });
            }
        });
    }
}

impl Driver for Jobs {
    fn name(&self) -> &'static str {
        "jobs"
    }

    fn start(&self, observer: Observer) -> Result<(), DriverError> {
        self.observer.set(Arc::new(observer)).map_err(|_| DriverError::Closed)
    }

    fn prepare(
        &self,
        _: AtomId,
        _: &AtomSpec,
        _: Option<&Surroundings>,
    ) -> Result<(), DriverError> {
        Ok(())
    }

    fn release(&self, _: AtomId) {}

    fn send(&self, command: Command) -> Result<(), DriverError> {
        match command {
            Command::Start(order) => self.start_job(&order),
            Command::Stop { atom, .. } => drop(self.running.lock().unwrap().remove(&atom)),
            Command::Look(remembered) => {
                let (atom, at, reason) = (remembered.order.atom, now(), Reason::ExitUnobserved);
                let detail = "it ended with the program that it was a thread of".to_owned();
                self.tell(Observation::LostSight { atom, at, reason, detail });
                self.tell(Observation::Seen { atom, sighting: Sighting::Changed });
            }
            Command::Remove { atom, .. } => {
                self.running.lock().unwrap().remove(&atom);
                self.tell(Observation::Removed { atom, at: now() });
            }
            Command::Sync { token } => self.tell(Observation::Synced { token }),
            Command::CloseStdin { .. } => {}
        }
        Ok(())
    }

    fn logs(&self, _: &Atom, _: &LogQuery) -> Result<Box<dyn LogSource>, DriverError> {
        let source = std::io::Error::from(std::io::ErrorKind::Unsupported);
        Err(DriverError::Io { what: "jobs print nothing".into(), source })
    }

    fn close(&self) {
        self.running.lock().unwrap().clear();
    }
}

fn main() -> Result<(), Error> {
    let engine = JournaledEngine::in_memory(Jobs::default())?;
    let short = engine.create(AtomSpec::command("pause").arg("20").into())?;
    let long = engine.create(AtomSpec::command("pause").arg("3600000").into())?;
    let none = engine.create(AtomSpec::command("dance").into())?;
    let ended = [
        engine.wait(&short.id().into())?,
        engine.stop(&StopRequest::from(long.id()))?,
        engine.wait(&none.id().into())?,
    ];
    for atom in ended {
        let [program, outcome, reason] = [
            atom.spec().get_program().to_string_lossy().into_owned(),
            atom.result().map(|outcome| outcome.to_string()).unwrap_or_default(),
            atom.reason().map(|reason| reason.to_string()).unwrap_or_default(),
        ];
        println!("{program}: {outcome} ({reason})");
    }
    engine.close()
}
