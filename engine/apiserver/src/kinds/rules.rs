//! One built-in kind's behaviour as data: which defaults, checks and columns apply.

use gantry_kube_types::FieldError;
use jiff::Timestamp;
use serde_json::Value;

use crate::kind::{Column, NameRule, ScalePaths, Strategy};
use crate::kinds::report::Errors;

/// What a kind does beyond being stored. Every function is total: no value makes it panic.
#[derive(Clone, Copy)]
pub(crate) struct Rules {
    pub name: NameRule,
    pub default: fn(&mut Value),
    pub create: fn(&mut Value),
    pub update: fn(&mut Value, &Value),
    pub check: fn(&Value, &mut Errors),
    pub check_update: fn(&Value, &Value, &mut Errors),
    pub warn: fn(&Value) -> Vec<String>,
    pub columns: fn() -> Vec<Column>,
    pub row: fn(&Value, Timestamp) -> Vec<Value>,
    pub fields: fn(&Value) -> Vec<(&'static str, String)>,
    pub grace: fn(&Value, Option<i64>) -> Option<i64>,
    pub scaled: bool,
    pub from_storage: fn(&mut Value),
    pub to_storage: fn(&mut Value),
    pub create_on_update: bool,
}

impl Rules {
    /// Stored as given, printed as name and age.
    pub(crate) const STORED: Self = Self {
        name: NameRule::Subdomain,
        default: |_| {},
        create: |_| {},
        update: |_, _| {},
        check: |_, _| {},
        check_update: |_, _, _| {},
        warn: |_| Vec::new(),
        columns: crate::kinds::print::age_columns,
        row: crate::kinds::print::age_row,
        fields: |_| Vec::new(),
        grace: |_, _| None,
        scaled: false,
        from_storage: |_| {},
        to_storage: |_| {},
        create_on_update: false,
    };
}

impl Strategy for Rules {
    fn default(&self, object: &mut Value) {
        (self.default)(object);
    }

    fn from_storage(&self, object: &mut Value) {
        (self.from_storage)(object);
    }

    fn to_storage(&self, object: &mut Value) {
        (self.to_storage)(object);
    }

    fn prepare_create(&self, object: &mut Value) {
        (self.create)(object);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        (self.update)(new, old);
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::default();
        (self.check)(object, &mut errors);
        errors.into_vec()
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Errors::default();
        (self.check)(new, &mut errors);
        (self.check_update)(new, old, &mut errors);
        errors.into_vec()
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        (self.warn)(object)
    }

    fn columns(&self) -> Vec<Column> {
        (self.columns)()
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        (self.row)(object, now)
    }

    fn selectable_fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        (self.fields)(object)
    }

    fn deletion_grace_seconds(&self, object: &Value, asked: Option<i64>) -> Option<i64> {
        (self.grace)(object, asked)
    }

    fn scale(&self) -> Option<ScalePaths> {
        self.scaled.then(ScalePaths::workload)
    }

    fn allows_create_on_update(&self) -> bool {
        self.create_on_update
    }
}
