//! Decisions of the controller: the task that runs where Raft leads.
