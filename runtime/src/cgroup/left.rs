//! Who is left in a group that was killed, in words.

use std::fs;

use rustix::process::Pid;

use super::Cgroup;

/// Of so many it is told.
const TOLD: usize = 3;

impl Cgroup {
    /// The processes of the group and why they are still there, those that hang in the
    /// kernel first; none where none is seen.
    pub fn who_is_left(&self) -> Option<String> {
        let mut left: Vec<Left> = self
            .procs()
            .unwrap_or_default()
            .into_iter()
            .map(Left::look)
            .collect();
        left.sort_by_key(|left| !left.hangs());
        let told: Vec<String> = left.iter().take(TOLD).map(Left::describe).collect();
        (!told.is_empty()).then(|| told.join(", "))
    }
}

/// A process as proc_pid_stat(5) and proc_pid_wchan(5) have it.
struct Left {
    pid: i32,
    name: String,
    state: char,
    waits_in: String,
}

impl Left {
    fn look(pid: Pid) -> Self {
        let pid = pid.as_raw_nonzero().get();
        let tell = |name| fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
        let stat = tell("stat");
        let state = stat
            .rsplit_once(") ")
            .and_then(|(_, rest)| rest.chars().next());
        Self {
            pid,
            name: tell("comm").trim_end().to_owned(),
            state: state.unwrap_or('?'),
            waits_in: tell("wchan"),
        }
    }

    fn hangs(&self) -> bool {
        self.state == 'D'
    }

    fn describe(&self) -> String {
        let Self { pid, name, .. } = self;
        // Where the kernel keeps that for itself it says 0.
        let place = match self.waits_in.as_str() {
            "" | "0" => String::new(),
            place => format!(" in {place}"),
        };
        match self.hangs() {
            true => format!("process {pid} ({name}) is in uninterruptible sleep{place}"),
            false => format!("process {pid} ({name}) waits{place}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(state: char, waits_in: &str) -> String {
        let left = Left {
            pid: 7,
            name: "sh".to_owned(),
            state,
            waits_in: waits_in.to_owned(),
        };
        left.describe()
    }

    #[test]
    fn a_process_is_told_with_its_wait_channel_where_that_is_known() {
        let hangs = "process 7 (sh) is in uninterruptible sleep";
        assert_eq!(
            left('D', "rwsem_down_read"),
            format!("{hangs} in rwsem_down_read")
        );
        assert_eq!(left('D', "0"), hangs);
        assert_eq!(left('S', "do_wait"), "process 7 (sh) waits in do_wait");
    }
}
