pub struct SimDisk;
