//! Rendering: a template by its name, with the values that it names.

use super::files;
use minijinja::{Environment, Error, UndefinedBehavior, Value, context};
#[cfg(embedded_pages)]
use std::sync::LazyLock;

/// A page by the name of its template, with the values that differ from page to page; where the files are served is known to all.
///
/// # Errors
/// A template that is missing or faulty, or names a value that is not there.
pub fn render(name: &str, values: Value) -> Result<String, Error> {
    // Its slashes need no escaping inside an attribute.
    let assets = Value::from_safe_string(files::base_path());
    let values = context! { assets, ..values };
    #[cfg(embedded_pages)]
    {
        static ENVIRONMENT: LazyLock<Environment<'static>> = LazyLock::new(environment);
        ENVIRONMENT.get_template(name)?.render(values)
    }
    // Made anew, so that a changed file is seen at once.
    #[cfg(not(embedded_pages))]
    environment().get_template(name)?.render(values)
}

fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_keep_trailing_newline(true);
    environment.set_loader(|name| Ok(files::template(name)));
    environment
}
