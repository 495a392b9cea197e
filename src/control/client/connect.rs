//! Coming to the holder of a store.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect as to, send,
    socket_with,
};

use super::super::SOCKET;
use super::super::hello::Hello;
use super::PATIENCE;
use super::line::Line;
use crate::engine::Error;
use crate::socket;

/// Connects, and greets.
pub(super) fn connect(store: &Path) -> Result<Line, Error> {
    let path = || store.to_owned();
    let failed = |error: io::Error| {
        let is = |kinds: &[ErrorKind]| kinds.contains(&error.kind());
        let path = path();
        if is(&[ErrorKind::NotFound, ErrorKind::ConnectionRefused, ErrorKind::NotADirectory]) {
            Error::NotServed { path }
        } else if is(&[ErrorKind::WouldBlock, ErrorKind::TimedOut]) {
            Error::HolderBusy { path }
        } else if is(&[ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset, ErrorKind::BrokenPipe])
        {
            Error::HolderGone { path }
        } else {
            let problem = format!("its control socket cannot be used: {error}");
            Error::StoreRefused { path, problem }
        }
    };
    let mut stream = find(store).map_err(failed)?;
    if let Err(why) = socket::check_peer(&stream) {
        let problem = format!("what listens on its control socket is not to be trusted: {why}");
        return Err(Error::StoreRefused { path: path(), problem });
    }
    let theirs = greet(&mut stream).map_err(failed)?;
    if theirs.full {
        return Err(Error::HolderBusy { path: path() });
    }
    if Hello::OURS.common(theirs).is_none() {
        let Hello { oldest, newest, full: _ } = theirs;
        return Err(Error::Incompatible { path: path(), oldest, newest });
    }
    // What lies in it is found from another working directory too.
    Line::new(std::path::absolute(store).unwrap_or_else(|_| path()), stream).map_err(failed)
}

fn find(store: &Path) -> io::Result<UnixStream> {
    let dir = File::open(store)?;
    let address = SocketAddrUnix::new(socket::short_path(&dir, SOCKET))?;
    // A holder that lets nobody in must not hold us up: then there is EAGAIN.
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    to(&socket, &address)?;
    let stream = UnixStream::from(socket);
    stream.set_nonblocking(false)?;
    Ok(stream)
}

fn greet(stream: &mut UnixStream) -> io::Result<Hello> {
    match send(&*stream, &Hello::OURS.to_bytes(), SendFlags::NOSIGNAL) {
        // Whoever is full does not listen, and says so.
        Ok(_) | Err(Errno::PIPE) => {}
        Err(error) => return Err(error.into()),
    }
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut theirs = [0; Hello::BYTES];
    stream.read_exact(&mut theirs)?;
    stream.set_read_timeout(None)?;
    Hello::from_bytes(&theirs)
        .ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "what answers is no holder"))
}
