//! `always-benign`: never an alert. The floor of false alarms, and what accuracy on benign traffic is worth.

use super::super::detector::{Detector, Fitted};
use super::super::prepare::Flows;
use papertrial_core::Result;
use papertrial_core::task::{Context, Facts, Method};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// It has no options.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct AlwaysBenign {}

impl Method for AlwaysBenign {
    const FACTS: Facts = Facts {
        name: "always-benign",
        about: "never an alert: the floor of false alarms",
        paper: None,
        streams: true,
    };
}

impl Detector for AlwaysBenign {
    fn fit(&self, _: &Flows, _: &[usize], _: usize, _: &Context) -> Result<Box<dyn Fitted>> {
        Ok(Box::new(Model {}))
    }
}

/// Nothing was fitted.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Model {}

impl Fitted for Model {
    fn window(&self) -> usize {
        1
    }

    fn parameters(&self) -> usize {
        0
    }

    fn score(&self, _: &Flows, rows: &[usize], _: &Context) -> Result<Vec<f32>> {
        Ok(vec![0.0; rows.len()])
    }

    fn save(&self, folder: &Path) -> Result<bool> {
        super::write(self, folder)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::flows;
    use super::*;

    #[test]
    fn nothing_is_an_alert_whatever_the_labels() {
        let context = Context::with_seed(0);
        let mut some = flows(20, false, 1);
        some.attack = None;
        let fitted = AlwaysBenign {}.fit(&some, &[], 8, &context).unwrap();
        assert_eq!(fitted.score(&some, &[0, 7], &context).unwrap(), [0.0, 0.0]);
        let folder = tempfile::tempdir().unwrap();
        assert!(fitted.save(folder.path()).unwrap());
        let again = super::super::load("always-benign", folder.path(), &context);
        assert_eq!(again.unwrap().unwrap().parameters(), 0);
    }
}
