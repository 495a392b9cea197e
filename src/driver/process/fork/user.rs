//! Who an atom runs as, looked up before the fork: names come from the system, directory services included.

use std::ffi::CString;

use nix::unistd::{Gid, Group, Uid, User, getgrouplist};

use super::super::spawn::Failure;
use crate::atom::AtomSpec;
use crate::lifecycle::Reason;

/// Who an atom runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Credentials {
    /// Its user.
    pub(super) uid: u32,
    /// Its group.
    pub(super) gid: u32,
    /// Its other groups.
    pub(super) groups: Vec<u32>,
}

/// Who an atom is to run as; `None` when that is who we are.
pub(super) fn credentials(spec: &AtomSpec) -> Result<Option<Credentials>, Failure> {
    if spec.get_user().is_none() && spec.get_group().is_none() {
        return Ok(None);
    }
    let (uid, entry) = match spec.get_user() {
        Some(user) => find_user(user)?,
        None => {
            let own = Uid::effective();
            (own.as_raw(), look_up(&own.to_string(), || User::from_uid(own))?)
        }
    };
    let gid = match (spec.get_group(), &entry) {
        (Some(group), _) => find_group(group)?,
        (None, Some(entry)) => entry.gid.as_raw(),
        (None, None) => {
            return Err(bad(format!(
                "user {uid} has no entry that names its group: name a group as well"
            )));
        }
    };
    let ours = (Uid::effective().as_raw(), Gid::effective().as_raw());
    if (uid, gid) == ours && !Uid::effective().is_root() {
        return Ok(None);
    }
    let groups = match entry {
        Some(entry) => groups_of(&entry.name, gid)?,
        None => vec![gid],
    };
    Ok(Some(Credentials { uid, gid, groups }))
}

fn find_user(user: &str) -> Result<(u32, Option<User>), Failure> {
    if let Some(uid) = number(user) {
        let entry = look_up(user, || User::from_uid(Uid::from_raw(uid)))?;
        return Ok((uid, entry));
    }
    match look_up(user, || User::from_name(user))? {
        Some(entry) => Ok((entry.uid.as_raw(), Some(entry))),
        None => Err(bad(format!("there is no user {user}"))),
    }
}

fn find_group(group: &str) -> Result<u32, Failure> {
    if let Some(gid) = number(group) {
        return Ok(gid);
    }
    match look_up(group, || Group::from_name(group))? {
        Some(entry) => Ok(entry.gid.as_raw()),
        None => Err(bad(format!("there is no group {group}"))),
    }
}

/// A number, but for the one that means nobody in system calls.
fn number(text: &str) -> Option<u32> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten().filter(|number| *number != u32::MAX)
}

fn look_up<T>(
    name: &str,
    find: impl FnOnce() -> nix::Result<Option<T>>,
) -> Result<Option<T>, Failure> {
    find().map_err(|error| bad(format!("{name} cannot be looked up: {}", error.desc())))
}

fn groups_of(name: &str, gid: u32) -> Result<Vec<u32>, Failure> {
    let c_name = CString::new(name).map_err(|_| bad("a user's name contains NUL".to_owned()))?;
    let groups = getgrouplist(&c_name, Gid::from_raw(gid)).map_err(|error| {
        bad(format!("the groups of {name} cannot be looked up: {}", error.desc()))
    })?;
    Ok(groups.into_iter().map(Gid::as_raw).collect())
}

fn bad(detail: String) -> Failure {
    Failure::new(Reason::BadUser, detail)
}
