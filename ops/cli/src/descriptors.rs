//! The limit of open files and connections of this process.

/// Takes as many descriptors as the process may have.
///
/// # Errors
/// The system's, which then leaves the limit as it was.
pub fn raise_limit() -> std::io::Result<()> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls only read or write the struct they are given.
    let raised = unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 && {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) == 0
        }
    };
    if raised { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}
