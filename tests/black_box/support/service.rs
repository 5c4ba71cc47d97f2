//! The service under test, which runs in this process on a free port.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cameo::app::App;
use cameo::auth;
use cameo::config::{self, Config, ExposeSecret, SecretString};
use cameo::jail::Program;
use cameo::server;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::routes::routes_of;
use super::{Backend, Client, Route};

const SECRET: &str = "a secret that only the tests know, 32 bytes";

pub(crate) struct TestService {
    pub(crate) config: Config,
    data: Arc<Data>,
    metrics: Option<SocketAddr>,
    routes: BTreeSet<Route>,
    operator_routes: BTreeSet<Route>,
    stop: Option<oneshot::Sender<()>>,
    server: JoinHandle<()>,
}

/// The data of a service: its folder and its servers. Dropping it removes them.
pub(crate) struct Data {
    folder: TempDir,
    backend: Backend,
}

impl Data {
    async fn from_environment() -> Arc<Self> {
        Self::of(Backend::start().await)
    }

    fn of(backend: Backend) -> Arc<Self> {
        let folder = TempDir::new().unwrap();
        Arc::new(Self { folder, backend })
    }
}

impl TestService {
    /// Starts a service with the default settings, except that rate limits are off.
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Starts a service with these environment variables over the defaults.
    pub(crate) async fn start_with(variables: &[(&str, &str)]) -> Self {
        Self::start_in(Data::from_environment().await, variables).await
    }

    /// Starts a service on a bucket and Redis, independent of `TEST_BACKEND`.
    pub(crate) async fn start_fleet(variables: &[(&str, &str)]) -> Self {
        Self::start_on(Backend::fleet().await, variables).await
    }

    /// Starts a service on this backend, independent of `TEST_BACKEND`.
    pub(crate) async fn start_on(backend: Backend, variables: &[(&str, &str)]) -> Self {
        Self::start_in(Data::of(backend), variables).await
    }

    /// The environment variables that make another process use the same data.
    pub(crate) fn variables(&self) -> Vec<(&'static str, String)> {
        let mut variables = self.data.backend.variables();
        let folder = self.data.folder.path().to_str().unwrap();
        variables.push(("CAMEO_DATA_DIR", folder.to_owned()));
        variables.push(("CAMEO_HTTP__BIND", "127.0.0.1:0".to_owned()));
        variables
    }

    /// The servers that hold the data.
    pub(crate) fn backend(&self) -> &Backend {
        &self.data.backend
    }

    /// Starts a second replica on the same data.
    pub(crate) async fn replica(&self, variables: &[(&str, &str)]) -> Self {
        Self::start_in(Arc::clone(&self.data), variables).await
    }

    async fn start_in(data: Arc<Data>, variables: &[(&str, &str)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let defaults = [
            ("CAMEO_DATA_DIR", data.folder.path().to_str().unwrap()),
            ("CAMEO_HTTP__PUBLIC_URL", &url),
            ("CAMEO_AUTH__JWT_SECRET", SECRET),
            ("CAMEO_LIMITS__ENABLED", "false"),
        ];
        let backend = data.backend.variables();
        let backend: Vec<_> = backend
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        let variables = defaults.iter().chain(&backend).chain(variables);
        let variables = variables.map(|(name, value)| (name.into(), value.into()));
        let config = config::load(None, variables).unwrap();
        let zygote = Program::new(
            env!("CARGO_BIN_EXE_cameo").into(),
            vec!["imaging-zygote".into()],
        );
        let app = App::open(&config, Some(&SecretString::from(SECRET)), &zygote)
            .await
            .unwrap();
        let metrics = app.metrics.as_ref();
        let metrics = metrics.map(|listener| listener.local_addr().unwrap());
        let routes = routes_of(&cameo::http::router(app.http.clone()));
        let operator_routes = routes_of(&cameo::http::metrics_router(app.http.clone()));
        let (stop, stopped) = oneshot::channel();
        let shutdown = async move { stopped.await.unwrap_or(()) };
        let server = tokio::spawn(server::run(app, listener, shutdown));
        Self {
            config,
            data,
            metrics,
            routes,
            operator_routes,
            stop: Some(stop),
            server,
        }
    }

    /// Shuts the service down, and starts it again on the same data.
    pub(crate) async fn restart_with(mut self, variables: &[(&str, &str)]) -> Self {
        self.stop.take().unwrap().send(()).unwrap();
        self.server.await.unwrap();
        Box::pin(Self::start_in(self.data, variables)).await
    }

    /// Begins the shutdown. Returns the service's task, and its data.
    pub(crate) fn stop(mut self) -> (JoinHandle<()>, Arc<Data>) {
        self.stop.take().unwrap().send(()).unwrap();
        (self.server, self.data)
    }

    /// The separate address of the metrics, if it is configured.
    pub(crate) fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics
    }

    /// The routes of the main address.
    pub(crate) fn routes(&self) -> &BTreeSet<Route> {
        &self.routes
    }

    /// The routes of the address in `http.metrics_bind`.
    pub(crate) fn operator_routes(&self) -> &BTreeSet<Route> {
        &self.operator_routes
    }

    pub(crate) fn url(&self) -> &str {
        &self.config.http.public_url
    }

    /// The sorted keys of all objects.
    pub(crate) async fn objects(&self) -> Vec<String> {
        self.data.backend.objects(self.data.folder.path()).await
    }

    /// The bytes of an object.
    pub(crate) async fn read_object(&self, key: &str) -> Vec<u8> {
        let data = self.data.folder.path();
        self.data.backend.read_object(data, key).await
    }

    /// Removes an object directly from the store, without the service.
    pub(crate) async fn remove_object(&self, key: &str) {
        let data = self.data.folder.path();
        self.data.backend.remove_object(data, key).await;
    }

    /// Removes the whole store.
    pub(crate) async fn remove_store(&self) {
        let data = self.data.folder.path();
        self.data.backend.remove_store(data).await;
    }

    pub(crate) fn anonymous(&self) -> Client {
        Client::new(self.url(), None)
    }

    pub(crate) fn owner(&self, user: &str) -> Client {
        self.with_roles(user, &[])
    }

    pub(crate) fn admin(&self) -> Client {
        self.with_roles("root", &["admin"])
    }

    pub(crate) fn service(&self) -> Client {
        self.with_roles("main-application", &["service"])
    }

    fn with_roles(&self, user: &str, roles: &[&str]) -> Client {
        Client::new(self.url(), Some(self.token(user, roles)))
    }

    pub(crate) fn token(&self, user: &str, roles: &[&str]) -> String {
        let roles: Vec<_> = roles.iter().map(ToString::to_string).collect();
        auth::issue(
            &self.config.auth,
            &self.jwt_secret(),
            user,
            &roles,
            Duration::from_mins(5),
        )
        .unwrap()
    }
    /// A token with exactly these claims.
    pub(crate) fn token_with(&self, claims: &serde_json::Value) -> String {
        let secret = self.jwt_secret();
        let key = jsonwebtoken::EncodingKey::from_secret(secret.expose_secret().as_bytes());
        jsonwebtoken::encode(&jsonwebtoken::Header::default(), claims, &key).unwrap()
    }

    /// A client with this token.
    pub(crate) fn client_with(&self, token: &str) -> Client {
        Client::new(self.url(), Some(token.to_owned()))
    }

    fn jwt_secret(&self) -> SecretString {
        let configured = self.config.auth.main.jwt_secret.clone();
        configured.unwrap_or_else(|| SecretString::from(SECRET))
    }

    /// The secrets that the service was given or uses.
    pub(crate) fn secrets(&self) -> Vec<String> {
        let mut secrets = vec![self.jwt_secret().expose_secret().to_owned()];
        let given = self.data.backend.variables();
        let of_bucket = given
            .into_iter()
            .filter(|(name, _)| name.ends_with("SECRET_ACCESS_KEY"));
        secrets.extend(of_bucket.map(|(_, secret)| secret));
        secrets
    }

    /// All files in the data folder, with their contents.
    pub(crate) fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        fn walk(folder: &Path, files: &mut Vec<(PathBuf, Vec<u8>)>) {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    walk(&path, files);
                } else if path.is_file() {
                    let content = std::fs::read(&path).unwrap();
                    files.push((path, content));
                }
            }
        }
        let mut files = Vec::new();
        walk(self.data.folder.path(), &mut files);
        files
    }
}
