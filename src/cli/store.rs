//! Which store, and opening it.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::failure::{Failure, complain};
use crate::atom::Atom;
use crate::control::Attached;
use crate::engine::{Engine, Error, OnClose, ProcessEngine};

/// Where the store is: `--store`, else `CAESIUM_STORE`, else the user's state directory.
pub(super) fn path(option: Option<&Path>) -> Result<PathBuf, Failure> {
    let variable = |name| env::var_os(name).filter(|value: &OsString| !value.is_empty());
    if let Some(path) = option {
        return Ok(path.to_owned());
    }
    if let Some(path) = variable("CAESIUM_STORE") {
        return Ok(path.into());
    }
    // By the XDG specification a relative path is to be ignored.
    let absolute = |path: OsString| Some(PathBuf::from(path)).filter(|path| path.is_absolute());
    if let Some(state) = variable("XDG_STATE_HOME").and_then(absolute) {
        return Ok(state.join("caesium"));
    }
    match variable("HOME").and_then(absolute) {
        Some(home) => Ok(home.join(".local/state/caesium")),
        None => Err(Failure::said("no store: HOME is not set; name one with --store DIR")),
    }
}

/// Opens the store, or creates it, or is served by the process that has it open.
pub(super) fn open(option: Option<&Path>) -> Result<Attached, Failure> {
    let path = path(option)?;
    // What lives in a store is not ended by somebody who looks at it.
    let options = ProcessEngine::options().on_close(OnClose::Leave).policies(false);
    let engine = Attached::new(&path, options)?;
    if let Some(cut) = engine.cut() {
        complain(&format!(
            "the last write to {} had not been finished: {} bytes at {} are left out ({}); unless the disk is damaged nothing acknowledged is lost",
            cut.file.display(),
            cut.bytes,
            cut.offset,
            cut.why,
        ));
    }
    Ok(engine)
}

/// Asks again when who had the store has ended meanwhile: by whoever has it then, which may be us.
pub(super) fn persist<T>(mut ask: impl FnMut() -> Result<T, Error>) -> Result<T, Error> {
    loop {
        match ask() {
            Err(Error::HolderGone { .. }) => {}
            answer => return answer,
        }
    }
}

/// Opens the store if there is one. Looking for one does not create it.
pub(super) fn open_existing(option: Option<&Path>) -> Result<Result<Attached, Absent>, Failure> {
    let path = path(option)?;
    let empty = path.read_dir().map(|mut entries| entries.next().is_none());
    let absent = match empty {
        Ok(empty) => empty,
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    };
    // A dangling symbolic link is there, and is refused.
    if absent && !path.is_symlink() {
        return Ok(Err(Absent { path }));
    }
    open(option).map(Ok)
}

/// There is no store yet.
#[derive(Debug)]
pub(super) struct Absent {
    path: PathBuf,
}

impl Absent {
    pub(super) fn problem(&self) -> String {
        format!("there is no store at {} yet: `caesium run` makes one", self.path.display())
    }
}

/// Opens the store that must be there.
pub(super) fn open_present(option: Option<&Path>) -> Result<Attached, Failure> {
    open_existing(option)?.map_err(|absent| Failure::said(absent.problem()))
}

/// All the atoms that were asked for, before anything is done to one of them.
pub(super) fn find_all(engine: &dyn Engine, ids: &[String]) -> Result<Vec<Atom>, Failure> {
    let mut found: Vec<Atom> = Vec::with_capacity(ids.len());
    for id in ids {
        let atom = persist(|| engine.find(id))?;
        // The same one twice is once.
        found.retain(|other| other.id() != atom.id());
        found.push(atom);
    }
    Ok(found)
}
