//! What holds of a schedule after every call; looked at in debug builds.

use super::{Schedule, Stage};

impl Schedule {
    /// What must hold after every call.
    pub(super) fn check_invariants(&self) {
        if !cfg!(debug_assertions) {
            return;
        }
        let in_flight = self.lines.iter().filter(|(_, line)| matches!(line.stage, Stage::InFlight(_))).count();
        assert_eq!(in_flight, self.in_flight);
        assert!(self.suspects_in_flight <= self.in_flight);
        let due = self.lines.iter().filter(|(_, line)| line.stage == Stage::Due).count();
        let waiting: usize = self.devices.values().map(|device| device.waiting.len()).sum();
        assert_eq!(due, self.ready.len() + waiting);
        let resting = self.lines.iter().filter(|(_, line)| matches!(line.stage, Stage::Resting(_))).count();
        assert_eq!(resting, self.resting.len());
        for (id, line) in &self.lines {
            assert!(line.stage != Stage::Quiet || line.pending.next().is_none(), "line {id} forgets a notice");
            assert!(!line.closing || line.stage != Stage::Quiet, "line {id} is dead and buried by nobody");
        }
    }
}
