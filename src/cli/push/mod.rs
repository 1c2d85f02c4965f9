#[derive(Debug, clap::Args)]
pub struct PushArgs {}
pub(super) async fn run(_: PushArgs) -> std::process::ExitCode {
    std::process::ExitCode::FAILURE
}
