"""The admin page in a real browser, as a person uses it.

Reads one job as JSON from standard input:

    {"chromium": "/usr/bin/chromium", "url": "http://127.0.0.1:19000/", "token": "...", "pictures": "DIR",
     "consumer": "app"}

and prints what a person would have seen, as JSON: figures of the page at each step, what was refused or logged, and what
axe (https://github.com/dequelabs/axe-core) finds hard to use. Pictures are left in DIR.
"""

import json
import re
import sys
import time

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright

# Where a consumer stands in an answer, this stands instead. It does something if it is ever read as HTML.
HTML = "<img src=x onerror=\"document.title='taken over'\">"
# A slow machine is no failure.
PATIENCE_MS = 120_000
WIDE, NARROW = {"width": 1100, "height": 900}, {"width": 390, "height": 844}


def main():
    job = json.load(sys.stdin)
    with sync_playwright() as playwright:
        # Root may have no sandbox, and small machines little shared memory.
        browser = playwright.chromium.launch(
            executable_path=job["chromium"], args=["--no-sandbox", "--disable-dev-shm-usage", "--no-proxy-server"]
        )
        try:
            json.dump(Visit(browser, job).all(), sys.stdout)
        finally:
            browser.close()


class Visit:
    def __init__(self, browser, job):
        self.job = job
        self.found = {"axe": [], "problems": []}
        self.context = browser.new_context(viewport=WIDE, color_scheme="light", locale="en-GB")
        self.page = self.context.new_page()
        self.page.set_default_timeout(PATIENCE_MS)
        # A refused element of the content policy, an exception and an error are all said here.
        self.page.on("console", lambda said: said.type in ("error", "warning") and self.note(said.text))
        self.page.on("pageerror", lambda error: self.note(str(error)))
        self.foreign, self.running = [], set()
        self.page.on("request", self.begun)
        for end in ("requestfinished", "requestfailed"):
            self.page.on(end, lambda request: self.running.discard(request))

    def begun(self, request):
        self.running.add(request)
        if not request.url.startswith(self.job["url"]):
            self.foreign.append(request.url)

    def note(self, text):
        self.found["problems"].append(text)

    def all(self):
        self.log_in()
        self.look()
        self.filter()
        self.sort()
        self.keyboard()
        self.pictures()
        self.hostile()
        self.log_out()
        self.found["foreign"] = [url for url in self.foreign if not url.startswith("data:")]
        return self.found

    def log_in(self):
        page, found = self.page, self.found
        page.goto(self.job["url"])
        found["first_page"] = page.title()
        self.check("the login form")
        self.picture("login")
        page.get_by_label("Token of the admin port").fill("not-the-token-at-all")
        page.get_by_role("button", name="Log in").click()
        found["wrong_token"] = page.get_by_role("alert").inner_text()
        # The browser itself logs the status 401.
        found["problems"] = [text for text in found["problems"] if "401" not in text]
        page.get_by_label("Token of the admin port").fill(self.job["token"])
        page.keyboard.press("Enter")
        self.settled()

    def settled(self):
        """Waits until the page has drawn an answer to what it asks now."""
        # By locators alone: the page's policy keeps scripts from being evaluated, those of a driver too.
        self.page.locator("#ready", has_text=re.compile("^Ready$")).wait_for()
        self.page.locator("#usage table, #usage .empty").first.wait_for()
        # It has asked when it was told to, so what it draws is new when all answers are there.
        end = time.monotonic() + PATIENCE_MS / 1000
        while self.running and time.monotonic() < end:
            self.page.wait_for_timeout(50)
        self.page.wait_for_timeout(500)

    def figures(self):
        page = self.page
        number = lambda text: int(re.sub(r"\D", "", text) or 0)
        sums = {one.get_attribute("data-field"): number(one.inner_text()) for one in page.locator("#sums dd").all()}
        rows = [[cell.inner_text() for cell in row.locator("td").all()] for row in page.locator("#usage tbody tr").all()]
        table = [[cell.text_content() for cell in row.locator("td").all()] for row in page.locator("#plot-table tbody tr").all()]
        return {
            "sums": sums,
            "rows": rows,
            "plotted": sum(number(cell) for row in table for cell in row),
            "bars": page.locator("#plot .bars rect").count(),
            "legend": page.locator("#legend li").all_inner_texts(),
            "budgets": page.locator("#budgets").inner_text(),
            "gateways": page.locator("#gateways").inner_text(),
        }

    def look(self):
        self.found["whole"] = self.figures()
        self.check("the page")

    def filter(self):
        page = self.page
        page.get_by_label("Consumer", exact=True).fill(self.job["consumer"])
        page.keyboard.press("Tab")
        self.settled()
        self.found["filtered"] = self.figures()
        self.found["address"] = page.url
        page.reload()
        self.settled()
        self.found["reloaded"] = self.figures()
        page.get_by_role("button", name="Clear").click()
        self.settled()
        page.get_by_role("group", name="What is plotted").get_by_role("button", name="Requests").click()
        page.get_by_role("group", name="Time span").get_by_role("button", name="7 days").click()
        self.settled()
        self.found["requests"] = self.figures()
        page.get_by_role("group", name="What is plotted").get_by_role("button", name="Tokens").click()
        page.get_by_role("group", name="Time span").get_by_role("button", name="24 hours").click()
        self.settled()

    def sort(self):
        """By a figure, and by the same again the other way round."""
        page, orders = self.page, []
        for _ in range(2):
            page.locator("#usage thead").get_by_role("button", name="Output").click()
            head = page.locator("#usage th[aria-sort]")
            cells = page.locator("#usage tbody tr td[data-label=Output]").all_inner_texts()
            orders.append([head.get_attribute("aria-sort"), [int(re.sub(r"\D", "", cell)) for cell in cells]])
        self.found["orders"] = orders

    def keyboard(self):
        """The last bar is read out by an arrow key."""
        self.page.locator("#plot").focus()
        self.page.keyboard.press("ArrowLeft")
        self.found["read_out"] = self.page.locator("#plot-read").inner_text()

    def pictures(self):
        page = self.page
        for name, scheme, size in [("light", "light", WIDE), ("dark", "dark", WIDE), ("narrow", "light", NARROW)]:
            page.emulate_media(color_scheme=scheme)
            page.set_viewport_size(size)
            page.wait_for_timeout(500)
            self.picture(name)
            self.check(name)
            wider = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            self.found.setdefault("wider", {})[name] = wider
        page.set_viewport_size(WIDE)

    def hostile(self):
        """The page gets HTML for every consumer and backend, and shows it as text."""
        page = self.page

        def answer(route):
            response = route.fetch()
            text = json.dumps(json.loads(response.text()))
            for name in (self.job["consumer"], "runner"):
                text = text.replace(json.dumps(name), json.dumps(HTML))
            route.fulfill(response=response, body=text)

        page.route("**/api/**", answer)
        page.reload()
        self.settled()
        names = [page.locator("#usage tbody").inner_text(), page.locator("#by-consumer").inner_text(), page.locator("#legend").inner_text()]
        self.found["hostile"] = {
            "title": page.title(),
            "images": page.locator("img").count(),
            "shown": all("<img src=x" in text for text in names),
            "models": page.locator("#by-model").inner_text(),
        }
        self.picture("hostile")
        page.unroute("**/api/**")

    def log_out(self):
        page = self.page
        page.get_by_role("button", name="Log out").click()
        page.get_by_label("Token of the admin port").wait_for()
        page.goto(self.job["url"])
        self.found["after"] = page.title()

    def check(self, what):
        """Nothing here changes the page: axe reads it."""
        for violation in Axe().run(self.page).response["violations"]:
            nodes = [node["html"][:160] + " " + node.get("failureSummary", "")[:300] for node in violation["nodes"][:3]]
            self.found["axe"].append({"where": what, "rule": violation["id"], "nodes": nodes})

    def picture(self, name):
        self.page.screenshot(path=f"{self.job['pictures']}/{name}.png", full_page=True)


if __name__ == "__main__":
    main()
