//! Which hierarchies of cgroups there are, and where in them this process is.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::files;

/// A controller that is of use to an atom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Controller {
    Memory,
    Pids,
    Cpu,
    Cpuacct,
    Freezer,
    Io,
}

impl Controller {
    const ALL: [Self; 6] =
        [Self::Memory, Self::Pids, Self::Cpu, Self::Cpuacct, Self::Freezer, Self::Io];

    /// Its name in cgroup v1.
    pub(super) const fn v1(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Pids => "pids",
            Self::Cpu => "cpu",
            Self::Cpuacct => "cpuacct",
            Self::Freezer => "freezer",
            Self::Io => "blkio",
        }
    }

    /// Its name in cgroup v2; `None` for what is there without a controller.
    pub(super) const fn v2(self) -> Option<&'static str> {
        match self {
            Self::Memory => Some("memory"),
            Self::Pids => Some("pids"),
            Self::Cpu => Some("cpu"),
            Self::Io => Some("io"),
            Self::Cpuacct | Self::Freezer => None,
        }
    }
}

/// What kind of hierarchy it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// The unified one.
    V2 {
        /// Whether a cgroup can be killed at once (`cgroup.kill`, Linux 5.14).
        kill: bool,
    },
    /// One of version 1, with these controllers mounted together.
    V1(Vec<Controller>),
}

/// A hierarchy, and the cgroup in it under which those of a store are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hierarchy {
    pub(super) kind: Kind,
    /// Where it is mounted.
    pub(super) mount: PathBuf,
    /// What `/proc/PID/cgroup` calls the directory where it is mounted; without a slash at its end.
    pub(super) root: String,
    /// The cgroup under which ours are made: this process's own, or see [`Hierarchy::settle`].
    pub(super) base: PathBuf,
}

impl Hierarchy {
    /// Those that are mounted here; one may be at several places.
    pub(super) fn mounted() -> io::Result<Vec<Self>> {
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        Ok(parse(&mounts, &fs::read_to_string("/proc/self/cgroup")?))
    }

    /// Those that this process can be found in, each once. In a cgroup of version 1 with thousands of processes, looking takes
    /// milliseconds: the kernel sorts them all.
    pub(super) fn ours(mounted: Vec<Self>) -> Vec<Self> {
        let mut ours: Vec<Self> = Vec::new();
        for hierarchy in mounted {
            // The first one whose directory is really ours.
            if ours.iter().all(|other| !other.is_of_kind(&hierarchy.kind))
                && lists_us(&hierarchy.base)
            {
                ours.push(hierarchy);
            }
        }
        ours
    }

    /// Whether it is the hierarchy that another mount of this kind is, too.
    pub(super) fn is_of_kind(&self, kind: &Kind) -> bool {
        same_kind(&self.kind, kind)
    }

    /// Whether it has this controller bound to it: always so in v1, if the kernel has it in v2.
    pub(super) fn binds(&self, controller: Controller) -> bool {
        match &self.kind {
            Kind::V1(controllers) => controllers.contains(&controller),
            Kind::V2 { .. } => controller.v2().is_some_and(|name| {
                files::words(&self.base.join("cgroup.controllers"))
                    .is_ok_and(|words| words.iter().any(|word| word == name))
            }),
        }
    }

    /// What `/proc/PID/cgroup` calls a directory of it.
    pub(super) fn name_of(&self, dir: &Path) -> Option<String> {
        let inside = dir.strip_prefix(&self.mount).ok()?.to_str()?;
        Some(format!("{}/{inside}", self.root))
    }

    /// Whether a process with this `/proc/PID/cgroup` is in `dir`, or nested in it.
    pub(super) fn contains(&self, dir: &Path, of_process: &str) -> bool {
        let (Some(name), Some(own)) = (self.name_of(dir), own_path(&self.kind, of_process)) else {
            return false;
        };
        own.strip_prefix(name.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// Chooses the cgroup under which those of the store `store_dir` are made, from where this process is.
    pub(super) fn settle(&mut self, store_dir: &str, leaf: &str) {
        // It went into its leaf before.
        if self.base.file_name().is_some_and(|name| name == leaf)
            && let Some(store) = self.base.parent()
            && store.file_name().is_some_and(|name| name == store_dir)
            && let Some(base) = store.parent()
        {
            self.base = base.to_path_buf();
        }
        if matches!(self.kind, Kind::V2 { .. })
            && let Some(parent) = self.base.parent()
            && parent.starts_with(&self.mount)
            && is_delegated(parent)
            && fs::read_to_string(parent.join("cgroup.procs")).is_ok_and(|text| text.is_empty())
        {
            // The host was put into a leaf of what was delegated to it: its
            // siblings can have controllers, what is below it cannot.
            self.base = parent.to_path_buf();
        }
    }
}

/// Whether systemd says that everything below is ours to arrange.
pub(super) fn is_delegated(dir: &Path) -> bool {
    ["trusted.delegate", "user.delegate"].into_iter().any(|name| {
        let mut value = [0; 8];
        matches!(rustix::fs::getxattr(dir, name, &mut value), Ok(1) if value[0] == b'1')
    })
}

fn same_kind(one: &Kind, other: &Kind) -> bool {
    match (one, other) {
        (Kind::V2 { .. }, Kind::V2 { .. }) => true,
        (Kind::V1(one), Kind::V1(other)) => one == other,
        (Kind::V2 { .. }, Kind::V1(_)) | (Kind::V1(_), Kind::V2 { .. }) => false,
    }
}

fn lists_us(dir: &Path) -> bool {
    let us = std::process::id().to_string();
    fs::read_to_string(dir.join("cgroup.procs"))
        .is_ok_and(|text| text.lines().any(|line| line == us))
}

/// The path that a `/proc/PID/cgroup` gives for a hierarchy.
fn own_path<'a>(kind: &Kind, of_process: &'a str) -> Option<&'a str> {
    of_process.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (id, names, path) = (fields.next()?, fields.next()?, fields.next()?);
        let ours = match kind {
            Kind::V2 { .. } => id == "0" && names.is_empty(),
            Kind::V1(controllers) => controllers
                .first()
                .is_some_and(|first| names.split(',').any(|name| name == first.v1())),
        };
        ours.then_some(path)
    })
}

/// Reads `/proc/self/mountinfo` and `/proc/self/cgroup` together.
fn parse(mounts: &str, own: &str) -> Vec<Hierarchy> {
    mounts.lines().filter_map(|line| parse_mount(line, own)).collect()
}

fn parse_mount(line: &str, own: &str) -> Option<Hierarchy> {
    // 36 35 98:0 /root /mount/point rw,noatime master:1 - type source options
    let (mount, about) = line.split_once(" - ")?;
    let mut about = about.split(' ');
    let (kind, options) = (about.next()?, about.nth(1)?);
    let kind = match kind {
        "cgroup2" => Kind::V2 { kill: false },
        "cgroup" => {
            let controllers: Vec<_> = Controller::ALL
                .into_iter()
                .filter(|controller| options.split(',').any(|name| name == controller.v1()))
                .collect();
            if controllers.is_empty() {
                // A named one, or one of no use.
                return None;
            }
            Kind::V1(controllers)
        }
        _ => return None,
    };
    let mut fields = mount.split(' ').skip(3);
    let (root, mount) = (unescape(fields.next()?), unescape(fields.next()?));
    let root = root.trim_end_matches('/').to_owned();
    let mount = PathBuf::from(mount);
    // In a cgroup namespace both names are seen from its root. A mount of a part that
    // we are not in has no directory for us.
    let inside = own_path(&kind, own)?.strip_prefix(root.as_str())?;
    if !(inside.is_empty() || inside.starts_with('/')) || inside.split('/').any(|part| part == "..")
    {
        return None;
    }
    let inside = inside.trim_start_matches('/');
    let base = if inside.is_empty() { mount.clone() } else { mount.join(inside) };
    Some(Hierarchy { kind, mount, root, base })
}

/// Undoes the octal escapes of `/proc/self/mountinfo`.
fn unescape(field: &str) -> String {
    let mut text = String::with_capacity(field.len());
    let mut rest = field;
    while let Some(at) = rest.find('\\') {
        text.push_str(&rest[..at]);
        let code = rest.get(at + 1..at + 4).and_then(|code| u8::from_str_radix(code, 8).ok());
        match code {
            Some(code) if code.is_ascii() => {
                text.push(char::from(code));
                rest = &rest[at + 4..];
            }
            Some(_) | None => {
                text.push('\\');
                rest = &rest[at + 1..];
            }
        }
    }
    text.push_str(rest);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounted_together_in_a_container_and_named_ones_are_understood() {
        let mounts = "\
32 31 0:29 /docker/abc /sys/fs/cgroup/cpu,cpuacct ro,nosuid - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/mem\\040ory rw,relatime shared:3 - cgroup cgroup rw,memory
36 31 0:33 / /sys/fs/cgroup/devices rw,relatime - cgroup cgroup rw,devices
37 31 0:34 /other /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 /../.. /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
42 31 0:38 / /u rw,relatime - cgroup2 cgroup2 rw,nsdelegate
";
        let own = "\
5:cpu,cpuacct:/docker/abc/x:y
4:memory:/a b
3:pids:/others
1:name=systemd:/s
0::/leaf
";
        let found = parse(mounts, own);
        let bases: Vec<_> = found.iter().map(|one| one.base.to_str().unwrap()).collect();
        assert_eq!(
            bases,
            ["/sys/fs/cgroup/cpu,cpuacct/x:y", "/sys/fs/cgroup/mem ory/a b", "/u/leaf"]
        );
        assert_eq!(found[0].kind, Kind::V1(vec![Controller::Cpu, Controller::Cpuacct]));
        assert_eq!(found[2].kind, Kind::V2 { kill: false });
        let dir = Path::new("/sys/fs/cgroup/cpu,cpuacct/x:y/s/a");
        assert_eq!(found[0].name_of(dir).as_deref(), Some("/docker/abc/x:y/s/a"));
        let within = |path: &str| found[0].contains(dir, &format!("7:cpu,cpuacct:{path}\n"));
        assert!(within("/docker/abc/x:y/s/a") && within("/docker/abc/x:y/s/a/nested"));
        assert!(!within("/docker/abc/x:y/s/ab") && !within("/docker/abc/x:y/s") && !within("/"));
    }
}
