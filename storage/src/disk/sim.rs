/// The simulated disk; see `SimDisk::new`.
#[derive(Clone, Debug)]
pub struct SimDisk;
