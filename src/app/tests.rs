use super::*;
use crate::config;

fn config_with(variables: &[(&str, &str)]) -> Config {
    let variables = variables.iter();
    let variables = variables.map(|(name, value)| ((*name).into(), (*value).into()));
    config::load(None, variables).unwrap()
}

/// A program that ends at once, in place of the zygote.
fn broken() -> Program {
    Program::new("/bin/true".into(), Vec::new())
}

#[tokio::test]
async fn production_does_not_start_if_pictures_cannot_be_isolated() {
    let production = config_with(&[
        ("CAMEO_ENVIRONMENT", "production"),
        ("CAMEO_AUTH__JWT_SECRET", "Pw5u1z0mQeCkX9rVb3Tn8sGh4yJd6LfA"),
        ("CAMEO_HTTP__PUBLIC_URL", "https://cameo.example.com"),
    ]);
    let opened = open_workers(&production, &broken(), &Metrics::new()).await;
    let error = opened.err().unwrap();
    assert!(is_configuration(&error), "{error:#}");
    assert!(
        error.to_string().starts_with("processing.isolation: "),
        "{error:#}"
    );
}

#[tokio::test]
async fn development_warns_and_uses_threads_without_avif_if_pictures_cannot_be_isolated() {
    let development = config_with(&[]);
    let opened = open_workers(&development, &broken(), &Metrics::new()).await;
    let opened = opened.unwrap();
    assert!(matches!(opened.workers, Workers::Threads(..)));
    assert!(!opened.formats.contains(&SourceFormat::Avif));
    assert_eq!(opened.warnings.len(), 2, "{:?}", opened.warnings);
}

#[tokio::test]
async fn threads_are_used_by_choice_and_refuse_avif() {
    let chosen = config_with(&[("CAMEO_PROCESSING__ISOLATION", "thread")]);
    let opened = open_workers(&chosen, &broken(), &Metrics::new()).await;
    let opened = opened.unwrap();
    assert!(matches!(opened.workers, Workers::Threads(..)));
    assert!(!opened.formats.contains(&SourceFormat::Avif));
    assert_eq!(opened.warnings.len(), 1, "{:?}", opened.warnings);
}
