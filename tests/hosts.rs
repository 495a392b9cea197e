//! What hosts do, and what an engine in them has to bear: forks, SIGCHLD handlers, their own children, being
//! process 1, other ways to run processes beside it. Each host is a process of its own: this binary, executed again.

#![cfg(target_os = "linux")]

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use caesium::driver::process::Supervision;
use caesium::engine::{CreateRequest, ListRequest, WaitManyRequest};
use caesium::lifecycle::Reason;
use caesium::{
    Atom, AtomSpec, Engine, EngineOptions, OnClose, Outcome, ProcessEngine, RemoteEngine, State,
};

/// Says to this binary which host it is to be.
const HOST: &str = "CAESIUM_TEST_HOST";
/// Where, and by whom its atoms are supervised.
const STORE: &str = "CAESIUM_TEST_HOST_STORE";
const KEEPER: &str = "CAESIUM_TEST_HOST_KEEPER";

/// Runs `body` in a process of its own that has nothing but it, started through `wrapper`; once with a keeper, and once without.
fn host(name: &str, wrapper: &[&str], body: fn(ProcessEngine)) {
    if std::env::var_os(HOST).is_some_and(|host| host == name) {
        return body(open());
    }
    if std::env::var_os(HOST).is_some() {
        return;
    }
    for keeper in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let binary = std::env::current_exe().unwrap();
        let mut words: Vec<_> = wrapper.iter().map(Into::into).collect();
        words.push(binary.into_os_string());
        let mut command = Command::new(&words[0]);
        command
            .args(&words[1..])
            .args(["--exact", name, "--nocapture", "--test-threads=1"])
            .env(HOST, name)
            .env(STORE, dir.path().join("store"));
        if keeper {
            command.env(KEEPER, "1");
        }
        let status = command.status().unwrap();
        assert!(status.success(), "{name} failed in its own process (keeper: {keeper})");
    }
}

fn open() -> ProcessEngine {
    let options = if std::env::var_os(KEEPER).is_some() {
        let options = EngineOptions::new().supervision(Supervision::Keeper);
        options.keeper_program(env!("CARGO_BIN_EXE_caesium"))
    } else {
        EngineOptions::new().supervision(Supervision::InHost)
    };
    options.serve(true).open(PathBuf::from(std::env::var_os(STORE).unwrap())).unwrap()
}

fn sh(script: &str) -> AtomSpec {
    AtomSpec::command("sh").args(["-c", script])
}

/// Twenty atoms that end with their own codes.
fn twenty(engine: &ProcessEngine) -> Vec<Atom> {
    let requests = (0..20).map(|code| CreateRequest::from(sh(&format!("exit {code}"))));
    let created = engine.create_many(requests.collect()).unwrap();
    let ids: WaitManyRequest = created.iter().flatten().map(Atom::id).collect();
    engine.wait_all(&ids).unwrap()
}

/// They ended as they did.
fn as_they_did(atoms: &[Atom]) {
    for (code, atom) in atoms.iter().enumerate() {
        assert_eq!(atom.exit_code(), Some(code as i32), "{atom:#?}");
    }
}

/// The same, or nobody can know, on a kernel that does not tell those who did not wait; never another ending.
fn as_they_did_or_unknown(atoms: &[Atom]) {
    let mut unknown = 0;
    for (code, atom) in atoms.iter().enumerate() {
        if atom.result() == Some(Outcome::Unknown) {
            assert_eq!(atom.reason(), Some(Reason::ExitUnobserved), "{atom:#?}");
            unknown += 1;
        } else {
            assert_eq!(atom.exit_code(), Some(code as i32), "{atom:#?}");
        }
    }
    if unknown > 0 {
        println!("{unknown} of {} endings are unknown", atoms.len());
    }
}

/// The children of this process, zombies included.
fn children() -> Vec<u32> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let of = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("children"));
    let lists = tasks.filter_map(|task| of(task.ok()?).ok());
    lists
        .flat_map(|list| {
            list.split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<_>>()
        })
        .collect()
}

/// Forks. The child does `body` and ends with what it gives.
fn fork(body: impl FnOnce() -> i32) -> i32 {
    // SAFETY: the child does what a host's child may do: nothing that takes a lock which another thread
    // may have held at the moment of the fork, but for what the test is about. It ends by _exit.
    match unsafe { libc::fork() } {
        0 => {
            let status = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)).unwrap_or(99);
            // SAFETY: it ends this process and touches nothing.
            unsafe { libc::_exit(status) }
        }
        pid => {
            assert!(pid > 0, "cannot fork");
            let mut status = 0;
            // SAFETY: the pointer is valid for the write of an int; the pid is that of our own child.
            assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
            assert!(libc::WIFEXITED(status), "the child died of a signal: {status}");
            libc::WEXITSTATUS(status)
        }
    }
}

#[test]
fn a_host_that_forks_keeps_its_engine_and_its_child_has_none() {
    host("a_host_that_forks_keeps_its_engine_and_its_child_has_none", &[], |engine| {
        let atom = engine.create(sh("exec sleep 1000").into()).unwrap();
        let client = RemoteEngine::connect(std::env::var_os(STORE).unwrap()).unwrap();
        let subscription = engine.subscribe(1);
        for _ in 0..5 {
            let (engine, client) = (engine.clone(), client.clone());
            let status = fork(move || {
                // The last handles that this process knows of, and it comes to its end as any program does.
                drop(engine);
                drop(client);
                7
            });
            assert_eq!(status, 7);
        }
        // A child that leaves all of it to its end.
        assert_eq!(fork(|| 8), 8);
        drop(subscription);
        assert_eq!(engine.get(&atom.id().into()).unwrap().state(), State::Running);
        assert_eq!(client.get(&atom.id().into()).unwrap().state(), State::Running);
        // The store is still this host's alone.
        let second = EngineOptions::new()
            .lock_wait(std::time::Duration::from_millis(20))
            .open(std::env::var_os(STORE).unwrap());
        assert!(matches!(second, Err(caesium::Error::StoreLocked { .. })));
        as_they_did(&twenty(&engine));
        let mut other = fork_that_stays();
        engine.shutdown(OnClose::Stop).unwrap();
        // A child that lives on does not keep the store.
        let again = open();
        assert_eq!(again.list(&ListRequest::all()).unwrap().len(), 21);
        again.close().unwrap();
        other.kill().unwrap();
        other.wait().unwrap();
    });
}

/// A program that was started while the engine was open, and lives on.
fn fork_that_stays() -> std::process::Child {
    let mut command = Command::new("sleep");
    command.arg("1000").stdin(Stdio::null());
    // SAFETY: it makes std fork, which is what this is for, and does nothing.
    unsafe { command.pre_exec(|| Ok(())) }.spawn().unwrap()
}

#[test]
fn a_host_with_a_handler_for_sigchld_learns_how_its_atoms_end() {
    host("a_host_with_a_handler_for_sigchld_learns_how_its_atoms_end", &[], |engine| {
        static CALLS: AtomicUsize = AtomicUsize::new(0);
        extern "C" fn handler(_signal: libc::c_int) {
            CALLS.fetch_add(1, Ordering::Relaxed);
        }
        // SAFETY: a zeroed sigaction is a valid one; the handler adds to an atomic, which a handler may.
        let old = unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = handler as *const () as usize;
            let mut old: libc::sigaction = std::mem::zeroed();
            assert_eq!(libc::sigaction(libc::SIGCHLD, &action, &mut old), 0);
            old.sa_sigaction
        };
        assert_eq!(old, libc::SIG_DFL, "the engine leaves the signal alone");
        as_they_did(&twenty(&engine));
        // It is called for the host's own children, and every call of ours that it interrupts goes on.
        assert!(Command::new("true").status().unwrap().success());
        assert!(CALLS.load(Ordering::Relaxed) > 0);
        as_they_did(&twenty(&engine));
    });
}

#[test]
fn a_host_that_ignores_sigchld_is_told_no_ending_that_was_not() {
    let name = "a_host_that_ignores_sigchld_is_told_no_ending_that_was_not";
    host(name, &["env", "--ignore-signal=CHLD"], |engine| {
        let atoms = twenty(&engine);
        if std::env::var_os(KEEPER).is_some() {
            // Whoever starts them waits for them.
            as_they_did(&atoms);
        } else {
            as_they_did_or_unknown(&atoms);
        }
    });
}

#[test]
fn a_host_that_waits_for_its_own_children_gets_them_and_no_others() {
    host("a_host_that_waits_for_its_own_children_gets_them_and_no_others", &[], |engine| {
        let with_keeper = std::env::var_os(KEEPER).is_some();
        // One by one, by their pids: with or without a keeper this takes nothing from anybody.
        let own: Vec<_> = (0..20)
            .map(|code| {
                Command::new("sh").args(["-c", &format!("exit {}", 100 + code)]).spawn().unwrap()
            })
            .collect();
        as_they_did(&twenty(&engine));
        for (code, mut child) in own.into_iter().enumerate() {
            assert_eq!(child.wait().unwrap().code(), Some(100 + code as i32));
        }
        // Whichever comes: a host that has a keeper has no children but its own.
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let reaper = scope.spawn(|| {
                let mut strangers = 0;
                while !over.load(Ordering::Relaxed) {
                    let mut status = 0;
                    // SAFETY: the pointer is valid for the write of an int.
                    match unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG) } {
                        pid if pid > 0 => strangers += 1,
                        _ => std::thread::yield_now(),
                    }
                }
                strangers
            });
            let atoms = twenty(&engine);
            over.store(true, Ordering::Relaxed);
            let strangers = reaper.join().unwrap();
            if with_keeper {
                as_they_did(&atoms);
                assert_eq!(strangers, 0);
            } else {
                as_they_did_or_unknown(&atoms);
            }
        });
        if with_keeper {
            assert_eq!(children(), Vec::<u32>::new());
        }
    });
}

#[test]
fn a_host_may_run_processes_in_other_ways_beside() {
    host("a_host_may_run_processes_in_other_ways_beside", &[], |engine| {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let (engine, script) = (&engine, |code: usize| format!("exit {code}"));
        std::thread::scope(|scope| {
            let of_std = scope.spawn(move || {
                for code in 0..50 {
                    let status = Command::new("sh").args(["-c", &script(code)]).status().unwrap();
                    assert_eq!(status.code(), Some(code as i32));
                }
            });
            let of_tokio = scope.spawn(|| {
                runtime.block_on(async {
                    let children: Vec<_> = (0..50)
                        .map(|code| {
                            let mut command = tokio::process::Command::new("sh");
                            command.args(["-c", &format!("exit {code}")]).spawn().unwrap()
                        })
                        .collect();
                    for (code, mut child) in children.into_iter().enumerate() {
                        assert_eq!(child.wait().await.unwrap().code(), Some(code as i32));
                    }
                });
            });
            for _ in 0..3 {
                as_they_did(&twenty(engine));
            }
            of_std.join().unwrap();
            of_tokio.join().unwrap();
        });
        // On one of the runtime's own threads, too.
        let last = engine.create(sh("exit 9").into()).unwrap();
        let last = runtime.block_on(engine.wait_async(last.id())).unwrap();
        assert_eq!(last.exit_code(), Some(9));
    });
}

#[test]
fn a_host_may_be_process_1() {
    let unshare = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"];
    if std::env::var_os(HOST).is_none()
        && !Command::new(unshare[0])
            .args(&unshare[1..])
            .arg("true")
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    {
        eprintln!("SKIP: no pid namespace can be made here");
        return;
    }
    host("a_host_may_be_process_1", &unshare, |engine| {
        assert_eq!(std::process::id(), 1);
        as_they_did(&twenty(&engine));
        // What an atom leaves behind comes to process 1, which is this host.
        let atom = engine.create(sh("sleep 1000 & setsid sleep 1000 & exit 4").into()).unwrap();
        let atom = engine.wait(&atom.id().into()).unwrap();
        assert_eq!(atom.exit_code(), Some(4));
        let stopped = engine.create(sh("exec sleep 1000").into()).unwrap();
        let stopped = engine.stop(&stopped.id().into()).unwrap();
        assert_eq!(stopped.result(), Some(Outcome::Terminated));
        engine.close().unwrap();
        let zombies = children().into_iter().filter(|pid| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z'))
        });
        println!("zombies of process 1: {}", zombies.count());
        let again = open();
        assert_eq!(again.get(&atom.id().into()).unwrap(), atom);
    });
}
