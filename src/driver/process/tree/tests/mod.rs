//! Against the real kernel, as far as it lets us make cgroups here.

mod accounting;
mod figures;
mod hostile;
mod kills;
mod limits;
mod lives;

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::files;
use super::group::Group;
use super::hierarchy::{Controller, Kind};
use super::{Cgroups, hierarchy::Hierarchy};
use crate::atom::{AtomId, Limits};
use crate::driver::process::identity::{ProcStat, all_pids, has_environment};
use crate::driver::process::spawn::{MARKER, marker_entry};

/// Far beyond what anything here takes.
fn soon() -> Instant {
    Instant::now() + Duration::from_secs(30)
}

/// A name that no other store has.
fn store_name() -> String {
    format!("test-{}", AtomId::new())
}

/// The ways in which a group can be ended.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Way {
    UnifiedKill,
    UnifiedFreeze,
    LegacyFreezer,
    LegacyPids,
    /// Whatever is found here.
    Found,
}

/// A store's cgroups, and a line that says why there are none here.
fn cgroups(way: Way, name: &str) -> Option<Cgroups> {
    let legacy = |wanted| move |kind: &Kind| matches!(kind, Kind::V1(all) if all.contains(&wanted));
    let unified = |kind: &Kind| matches!(kind, Kind::V2 { .. });
    let found = match way {
        Way::UnifiedKill => Cgroups::only(name, true, |kind| *kind == Kind::V2 { kill: true }),
        Way::UnifiedFreeze => Cgroups::only(name, false, unified),
        Way::LegacyFreezer => Cgroups::only(name, false, legacy(Controller::Freezer)),
        Way::LegacyPids => Cgroups::only(name, false, legacy(Controller::Pids)),
        Way::Found => Some(Cgroups::find(name)).filter(Cgroups::can_contain),
    };
    if found.is_none() {
        eprintln!("SKIP: no cgroup can be made here for {way:?}");
    }
    found
}

/// Whether a limit can be set here; says so when not.
fn can_limit(cgroups: &Cgroups, limits: &Limits) -> bool {
    match cgroups.create(AtomId::new(), limits) {
        Ok(group) => {
            group.remove().unwrap();
            true
        }
        Err(failure) => {
            eprintln!("SKIP: {}", failure.detail);
            false
        }
    }
}

/// A hostile program in a group of its own. Nothing of either is left when this goes.
struct Played {
    cgroups: Cgroups,
    group: Option<Group>,
    leader: Child,
    /// What it said when it was ready.
    said: String,
}

impl Played {
    fn start(cgroups: Cgroups, role: &str, limits: &Limits) -> Self {
        let atom = AtomId::new();
        let group = cgroups.create(atom, limits).expect("a group can be made");
        let files = group.join_files();
        assert!(!files.is_empty());
        let mut joined: Command = Command::new("sh");
        joined
            .args(["-c", r#"for file in $JOIN; do echo 0 > "$file" || exit 99; done; exec "$@""#])
            .arg("sh")
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", hostile::ENTRY, "--nocapture", "--test-threads=1"])
            .env(
                "JOIN",
                files.iter().map(|file| file.to_str().unwrap()).collect::<Vec<_>>().join(" "),
            )
            .env(hostile::ROLE, role)
            .env(MARKER, atom.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let mut leader = joined.spawn().unwrap();
        let output = leader.stdout.take().unwrap();
        let mut played = Self { cgroups, group: Some(group), leader, said: String::new() };
        played.said = wait_until_ready(output);
        played
    }

    fn group(&self) -> &Group {
        self.group.as_ref().unwrap()
    }

    /// Everything that lives and was started as this atom, wherever it has gone.
    fn living(&self) -> Vec<u32> {
        let entry = marker_entry(self.group().atom());
        let lives = |pid: &u32| ProcStat::read(*pid).is_ok_and(|stat| !stat.is_zombie());
        all_pids()
            .unwrap()
            .into_iter()
            .filter(|pid| has_environment(*pid, &entry) && lives(pid))
            .collect()
    }

    /// Kills the group and checks that nothing of the atom lives, then removes it.
    fn kill(&mut self) {
        self.group().kill().unwrap();
        assert!(self.group().wait_empty(soon()), "left: {:?}", self.group().members());
        assert_eq!(self.living(), [0_u32; 0], "nothing of it lives");
        self.leader.wait().unwrap();
        self.group.take().unwrap().remove().unwrap();
        self.cgroups.remove_store_group();
    }
}

impl Drop for Played {
    fn drop(&mut self) {
        if let Some(group) = self.group.take() {
            let _ = group.kill();
            if !group.wait_empty(soon()) {
                eprintln!("left behind, as it does not end: {:?}", group.join_files());
                return;
            }
            let _ = group.remove();
        }
        let _ = self.leader.wait();
        self.cgroups.remove_store_group();
    }
}

/// Reads until a role says that it is ready; gives what it said with it, or nothing when it has ended.
fn wait_until_ready(mut output: ChildStdout) -> String {
    let mut text = String::new();
    let mut bytes = [0; 4096];
    loop {
        // Those who were forked keep the pipe open, even when their leader has failed.
        let turn = Timespec { tv_sec: 30, tv_nsec: 0 };
        let ready = poll(&mut [PollFd::new(&output, PollFlags::IN)], Some(&turn));
        assert_eq!(ready, Ok(1), "it never got ready, and said: {text}");
        let length = output.read(&mut bytes).unwrap();
        text.push_str(&String::from_utf8_lossy(&bytes[..length]));
        if let Some(at) = text.find(hostile::READY)
            && let Some((line, _)) = text[at + hostile::READY.len()..].split_once('\n')
        {
            return line.trim().to_owned();
        }
        if length == 0 {
            return String::new();
        }
    }
}

/// All directories anywhere in the hierarchies that belong to this store.
fn traces(name: &str) -> Vec<PathBuf> {
    let store = format!("caesium-{name}");
    let of_store = |dir: &Path| dir.components().any(|part| part.as_os_str() == store.as_str());
    let mut found = Vec::new();
    for hierarchy in Hierarchy::ours(Hierarchy::mounted().unwrap()) {
        found.extend(
            files::nested(&hierarchy.mount).unwrap().into_iter().filter(|dir| of_store(dir)),
        );
    }
    found
}

/// The first of a group's directories that has this file.
fn content(group: &Group, file: &str) -> Option<String> {
    let read = |node: &super::group::Node| fs::read_to_string(node.dir.join(file)).ok();
    group.nodes().iter().find_map(read).map(|text| text.trim().to_owned())
}

/// No directory at all.
const NOWHERE: [PathBuf; 0] = [];
