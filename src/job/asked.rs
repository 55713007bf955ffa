//! The job that a command is asked with: its file, or all layers that ship with the program.
//!
//! In: what was typed. Out: a job. Invariant: what was typed wins over the file.

use super::cli::LayerArgs;
use super::spec::Spec;
use crate::error::Result;

impl LayerArgs {
    /// The job that was named, with what was typed beside it.
    pub fn job_spec(&self) -> Result<Option<Spec>> {
        let spec = self.job.as_ref().map(|job| Spec::load(job, &self.sets)).transpose()?;
        Ok(spec.map(|spec| self.apply(spec)))
    }

    /// The same, or a job of all that ships.
    pub fn spec(&self) -> Result<Spec> {
        Ok(self.job_spec()?.unwrap_or_else(|| self.apply(Spec::shipped())))
    }

    /// A job with what was typed beside it.
    pub fn apply(&self, mut spec: Spec) -> Spec {
        if !self.country.is_empty() {
            spec.input.country.0.clone_from(&self.country);
        }
        spec.input.votes = self.votes.clone().or(spec.input.votes);
        spec
    }
}
