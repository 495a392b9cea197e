//! System calls past the C library, and the one that makes a process that shares this one's memory.
//!
//! The library writes what went wrong into a variable of the thread. A child that shares its parent's memory would
//! write into its parent's, which may be about to read it.

/// The number of an error.
pub(super) type Errno = i32;

/// The last of the numbers that a call gives for an error, negated (include/linux/err.h).
#[cfg(target_arch = "x86_64")]
const MAX_ERRNO: isize = 4095;

/// Makes a system call.
///
/// # Safety
///
/// As the call demands of its arguments.
pub(super) unsafe fn call<const N: usize>(
    number: libc::c_long,
    args: [usize; N],
) -> Result<usize, Errno> {
    const { assert!(N <= 6, "a system call has six arguments") };
    let mut all = [0; 6];
    for (place, arg) in all.iter_mut().zip(args) {
        *place = arg;
    }
    // SAFETY: as the caller says; a call does not look at arguments that it does not have.
    unsafe { six(number, all) }
}

#[cfg(target_arch = "x86_64")]
fn result(result: isize) -> Result<usize, Errno> {
    if (-MAX_ERRNO..0).contains(&result) { Err(-result as Errno) } else { Ok(result as usize) }
}

/// The kernel's convention: Documentation/arch/x86/entry_64.rst, and syscall(2).
#[cfg(target_arch = "x86_64")]
unsafe fn six(number: libc::c_long, args: [usize; 6]) -> Result<usize, Errno> {
    let [a, b, c, d, e, f] = args;
    let returned: isize;
    // SAFETY: the instruction changes the registers that are named, and what the call changes is as the caller says.
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") number as isize => returned,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e, in("r9") f,
            lateout("rcx") _, lateout("r11") _,
            options(nostack),
        );
    }
    result(returned)
}

/// Elsewhere children do not share memory, so that the library does as well.
#[cfg(not(target_arch = "x86_64"))]
unsafe fn six(number: libc::c_long, args: [usize; 6]) -> Result<usize, Errno> {
    let [a, b, c, d, e, f] = args;
    // SAFETY: as the caller says.
    let returned = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    if returned < 0 {
        return Err(std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO));
    }
    Ok(returned as usize)
}

/// Whether [`clone_sharing`] is written for this machine.
pub(super) const CAN_SHARE: bool = cfg!(target_arch = "x86_64");

/// clone3(2) for a child that has this process's memory, and a stack of its own in that: there it calls
/// `entry` with `argument`. Gives its pid; `ENOSYS` where [`CAN_SHARE`] is not.
///
/// # Safety
///
/// The arguments must ask for `CLONE_VM`, and not for `CLONE_VFORK`; their stack must be mapped, end at a
/// multiple of 16, and be nobody else's until the child has executed a program or has ended. So must all that
/// `entry` uses. It must not panic, allocate or lock, and call nothing of the C library.
pub(super) unsafe fn clone_sharing<T>(
    args: &libc::clone_args,
    entry: extern "C" fn(*const T) -> !,
    argument: *const T,
) -> Result<usize, Errno> {
    #[cfg(target_arch = "x86_64")]
    {
        let returned: isize;
        // SAFETY: in this process it is a system call like any other. The child comes out of it on its own stack, with
        // the same registers, and leaves it by a call that does not return.
        unsafe {
            std::arch::asm!(
                "syscall",
                "test rax, rax",
                "jnz 2f",
                "xor ebp, ebp",
                "mov rdi, r12",
                "call r13",
                "ud2",
                "2:",
                inlateout("rax") libc::SYS_clone3 as isize => returned,
                in("rdi") std::ptr::from_ref(args),
                in("rsi") size_of::<libc::clone_args>(),
                in("r12") argument,
                in("r13") entry,
                lateout("rcx") _, lateout("r11") _,
            );
        }
        result(returned)
    }
    // Here the way to do it is not known.
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = (args, entry, argument);
        Err(libc::ENOSYS)
    }
}
