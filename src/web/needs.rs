//! What is asked of a request before it is answered, and what its route does with it.

/// What a request may see or change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Nothing of what is stored: frames of pages, their files, the document, health.
    Open,
    /// It answers from pictures that are sent along or from what is stored.
    Read,
    /// It changes what is stored or what runs.
    Write,
}

/// The body of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// No body.
    None,
    /// JSON, which must be there.
    Json,
    /// A request without one means all defaults.
    JsonIfAny,
    /// `multipart/form-data`.
    Form,
    /// A form whose pictures go to the disk one by one, so that it may be far larger than the others.
    Upload,
    /// Either, as the content type says.
    JsonOrForm,
}

/// What a route needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needs {
    /// What it may see or change.
    pub access: Access,
    /// Only a limited number of these requests are answered at a time. All with a body are, since it may be held in memory.
    pub admission: bool,
    /// Its answer may be large and is sent as fast as the client takes it.
    pub is_download: bool,
    /// What is read of it.
    pub body: Body,
}
