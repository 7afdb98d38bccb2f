//! What is asked of an evaluation, checked before anything is computed.

use super::{Evaluation, EvaluationError, Method, MethodKind};

impl Evaluation {
    /// Those of the recipe; without any the adapters and the average of the pool where they are named, and the bare backbone.
    pub fn methods(&self) -> Vec<Method> {
        if !self.recipe.methods.is_empty() {
            return self.recipe.methods.clone();
        }
        let kinds = [
            (MethodKind::Adapter, self.names_adapters()),
            (MethodKind::Bare, true),
            (MethodKind::AVERAGE, !self.pool.is_empty()),
        ];
        let kinds = kinds.into_iter().filter(|(_, applies)| *applies);
        kinds.map(|(kind, _)| Method::from(kind)).collect()
    }

    fn names_adapters(&self) -> bool {
        !self.adapters.is_empty() || !self.candidates.is_empty()
    }

    /// Checks everything that needs no backbone and no picture.
    ///
    /// # Errors
    /// [`EvaluationError::Request`]
    pub fn check(&self) -> Result<(), EvaluationError> {
        let refuse = |sentence: String| Err(EvaluationError::Request(sentence));
        let recipe = &self.recipe;
        if recipe.tasks == 0 {
            return refuse("there must be at least 1 task".into());
        }
        if recipe.heads.is_empty() {
            return refuse(
                "there must be at least one head; auto suits every number of examples".into(),
            );
        }
        let methods = self.methods();
        for (place, method) in methods.iter().enumerate() {
            let name = method.kind.name();
            if methods[..place].contains(method) {
                return refuse(format!("the method {name} appears twice; leave one out"));
            }
            if method.kind == MethodKind::Adapter && !self.names_adapters() {
                return refuse("the method adapter needs an adapter; name it with --adapter, or adapters in a request".into());
            }
            if method.kind.merge().is_some() && self.pool.is_empty() {
                return refuse(format!(
                    "{name} merges adapters; name them with --pool A B C, or pool in a request"
                ));
            }
            let merging = method.kind.merge();
            if merging.is_some_and(|own| own.method().needs_density()) {
                return refuse(format!(
                    "{name} needs a density, which a comparison does not set; leave it out"
                ));
            }
            if method.kind == MethodKind::Tune && (recipe.tune_tasks == 0 || recipe.tune_steps == 0)
            {
                return refuse("tune needs at least 1 task and 1 step".into());
            }
        }
        if recipe.leave_one_out && self.pool.len() < 2 {
            return refuse(
                "to say what each adapter adds takes at least two that are merged; name them with --pool A B C, or pool in a request".into(),
            );
        }
        match recipe.against {
            Some(against) if !methods.iter().any(|method| method.kind == against) => {
                refuse(format!(
                    "differences are to be taken to {}, which is not among the methods; add it",
                    against.name()
                ))
            }
            _ => Ok(()),
        }
    }
}
