//! The pages, used as a person uses them: a real server, a real browser, real files.

mod accessibility;
mod admin;
mod compare;
mod jobs;
mod jobs_live;
mod session;
mod sort;
mod sort_batches;
mod sort_check;
mod sort_journey;
mod sort_kept;
mod sort_photographs;
mod sort_reach;
mod webdriver;

use session::Session;

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_address_leads_back_to_the_start_page() {
    let Some(page) = Session::start().await else {
        return;
    };
    page.open("/no/such/page").await;
    assert_eq!(page.text("h1").await, "There is no page here");
    page.click("main a").await;
    page.wait_for("document.documentElement.dataset.ready === 'true'")
        .await;
    page.close().await;
}
