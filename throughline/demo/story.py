"""The story: from anonymous page views to attributed revenue, with a consumer and the broker killed in the middle."""

import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from throughline.demo import forms
from throughline.demo.inbox import Inbox, Mail
from throughline.demo.ledger import Ledger, journey
from throughline.demo.screen import Screen, money
from throughline.demo.system import GaveUp, System, wait_for

NORA = "nora.fieldgate@harborlane.example"
TALIA = "talia.summers@ridgeback.example"
RHEA = "rhea.penrose@copperleaf.example"
BROWSER = "browser-5f2c"
DEAL_MINOR = 1_200_001
SITE = "https://www.harborlane.example"
MODELS = (
    "first_touch",
    "last_touch",
    "linear",
    "time_decay",
    "last_non_direct",
    "position_based",
    "engaged",
)
CROWD = 12
CROWD_TOUCHES = 40
CONSUMER = "attribution"
READING_S = 3.0  # a click sooner than two seconds after the send is taken for a scanner's


@dataclass
class Story:
    """One telling, on one system."""

    system: System
    inbox: Inbox
    screen: Screen
    ledger: Ledger

    def tell(self) -> bool:
        """The whole of it. Answers whether everything was found as it should be."""
        self._prepare()
        nora = self._identify()
        self._score(nora)
        assignment = self._assign(nora)
        mail = self._first_message()
        self._break_things()
        self._click(nora, mail)
        deal = self._accept_and_win(nora, assignment)
        self._other_money()
        self._credits(deal["conversion_id"])
        self._reports()
        return self._account()

    def _prepare(self) -> None:
        self.screen.title("People, pages, forms")
        for name, territories in (("Ana Duarte", ["PT", "ES"]), ("Jonas Weber", ["DE", "AT"]), ("Mei Lin", ["US"])):
            first = name.split()[0].lower()
            rep = {
                "name": name,
                "email": f"{first}@throughline.example",
                "territories": territories,
                "skills": [],
                "teams": ["sales"],
                "time_zone": "Europe/Berlin",
            }
            self.system.post("/routing/v1/reps", rep)
        self.screen.step("three reps: Ana (PT, ES), Jonas (DE, AT), Mei (US)")
        document = self.system.get("/routing/v1/rules")["document"]
        territory = {
            "id": "territory",
            "when": "stage == 'mql'",
            "who": "lead.country in rep.territories",
            "strategy": "round_robin",
        }
        document["rules"] = [territory, *document["rules"]]
        self.system.client.put("/routing/v1/rules", json=document).raise_for_status()
        self.screen.step("a routing rule: reps whose territory has the lead's country take turns")
        self._source("typeform", {"touch_type": "demo_requested"})
        self._source("stripe")
        self._source("shopify")
        self.screen.step("sources: Typeform, Stripe and Shopify, each with its secret and address")

    def _source(self, kind: str, defaults: dict[str, str] | None = None) -> None:
        made = self.system.post(
            "/capture/v1/sources", {"kind": kind, "name": f"Demo {kind}", "defaults": defaults or {}}
        )
        self._sources = {**getattr(self, "_sources", {}), kind: made}

    def _deliver(self, kind: str, delivery: forms.Delivery) -> None:
        self.system.deliver(self._sources[kind]["hook_url"], delivery.body, delivery.headers)

    def _identify(self) -> str:
        self.screen.title("From a browser to a person")
        began = datetime.now(UTC) - timedelta(days=6)
        pages = (
            (0, "/blog/lead-routing", "utm_source=linkedin&utm_medium=social&utm_campaign=launch"),
            (2, "/pricing", "utm_source=google&utm_medium=cpc&utm_campaign=spring-demo"),
            (5, "/customers", ""),
        )
        for days, page, query in pages:
            at = (began + timedelta(days=days)).isoformat()
            touch = {"anonymous_id": BROWSER, "type": "page_view", "url": f"{SITE}{page}?{query}", "occurred_at": at}
            self.system.post("/capture/v1/touches", touch)
        self.screen.step(f"three page views of an anonymous browser ({BROWSER}), with UTM parameters")
        answers: dict[str, str | bool] = {
            "first_name": "Nora",
            "last_name": "Fieldgate",
            "work_email": NORA,
            "company": "Harbor Lane Studio",
            "title": "Head of Operations",
            "country": "DE",
            "consent_email": True,
        }
        hidden = {"anonymous_id": BROWSER, "utm_source": "google", "utm_medium": "cpc", "utm_campaign": "spring-demo"}
        delivery = forms.typeform(self._sources["typeform"]["secret"], answers, hidden)
        self._deliver("typeform", delivery)
        self._deliver("typeform", delivery)
        self.screen.step("a signed Typeform submission says who it is (delivered twice, as form builders do)")
        lead = wait_for("the lead", lambda: self.system.get("/capture/v1/leads", email=NORA)["items"])[0]
        wait_for("her journey", lambda: len(journey(self.system, NORA)["touches"]) >= 4)
        self.screen.step(f"lead {lead['lead_id']}: {lead['first_name']} {lead['last_name']}, {lead['company']}")
        self._show_journey()
        return str(lead["lead_id"])

    def _show_journey(self) -> None:
        rows = [
            (touch["occurred_at"][:16], touch["type"], touch["channel"], touch["source"], touch["campaign"])
            for touch in journey(self.system, NORA)["touches"]
        ]
        self.screen.table(
            "her journey, the anonymous part included", ("when", "type", "channel", "source", "campaign"), rows
        )

    def _score(self, lead_id: str) -> None:
        self.screen.title("Score, grade, stage: every point explained")
        score = wait_for("the stage", lambda: self._scored(lead_id, "mql"))
        self.screen.step(
            f"engagement {score['engagement']:.1f} + fit {score['fit']} = {score['total']:.1f}, "
            f"grade {score['grade']}, stage {score['stage']}, rules version {score['rules_version']}"
        )
        rows = [
            (each["rule_id"], float(each["points"]), (each["occurred_at"] or "")[:16])
            for each in score["contributions"]
        ]
        self.screen.table("contributions", ("rule", "points", "when"), rows)

    def _scored(self, lead_id: str, stage: str) -> dict[str, Any] | None:
        score: dict[str, Any] = self.system.get(f"/scoring/v1/leads/{lead_id}")
        return score if score["stage"] == stage else None

    def _assign(self, lead_id: str) -> dict[str, Any]:
        self.screen.title("The right rep, and why")
        found: dict[str, Any] = wait_for(
            "the assignment", lambda: self.system.get(f"/routing/v1/leads/{lead_id}/assignment")
        )
        rep = self.system.get(f"/routing/v1/reps/{found['rep_id']}")
        self.screen.step(
            f"{found['state']} to {rep['name']} by {found['strategy']}, to be accepted by {found['due_at']}"
        )
        rows = [(each["rule_id"], "yes" if each["matched"] else "no", each["why"]) for each in found["trace"]]
        self.screen.table("trace", ("rule", "matched", "why"), rows)
        return found

    def _first_message(self) -> Mail:
        self.screen.title("The first message")
        mail: Mail = wait_for("the first message", lambda: next(iter(self.inbox.to(NORA)), None))
        self.screen.step(f"by SMTP to {mail.to}: {mail.subject}")
        one_click = mail.message["List-Unsubscribe-Post"]
        self.screen.panel(mail.subject, f"{mail.text}\n\nList-Unsubscribe-Post: {one_click}")
        return mail

    def _break_things(self) -> None:
        """Send touches of a crowd while a consumer and the broker are killed."""
        crowd = [f"person{number:02d}@crowd.example" for number in range(CROWD)]
        self.screen.title("In the middle of it: kill -9")

        def send() -> None:
            for number in range(CROWD_TOUCHES // 10):
                for email in crowd:
                    self.ledger.send(self.system, email, 10, number * 10)

        sending = threading.Thread(target=send)
        sending.start()
        if self.system.data_dir is None:
            self.screen.step("this system is not ours to kill; only the load is sent")
        else:
            pid = self.system.kill(CONSUMER)
            self.screen.step(f"kill -9 {pid}: the {CONSUMER} process, its consumer in the middle of a batch")
            pid = self.system.kill("kafka")
            self.screen.step(f"kill -9 {pid}: the Kafka broker")
        sending.join()
        count = sum(map(len, self.ledger.touches.values()))
        self.screen.step(
            f"{count} touches of {CROWD} people were acknowledged meanwhile: capture needs only PostgreSQL"
        )

    def _click(self, lead_id: str, mail: Mail) -> None:
        self.screen.title("A click comes back")
        before = self.system.get(f"/scoring/v1/leads/{lead_id}")["engagement"]
        wait_for("the time to read a message", lambda: time.monotonic() - mail.arrived > READING_S)
        path = httpx.URL(mail.first_link).raw_path.decode()
        browser = {"user-agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"}
        answer = self.system.client.get(path, headers=browser)
        self.screen.step(f"Nora follows the link: {answer.status_code} to {answer.headers['location']}")
        after = wait_for("the click in the score", lambda: self._risen(lead_id, before))
        self.screen.step(f"the click is a touch now, and engagement rose from {before:.1f} to {after:.1f}")

    def _risen(self, lead_id: str, before: float) -> float | None:
        now = float(self.system.get(f"/scoring/v1/leads/{lead_id}")["engagement"])
        return now if now > before + 1 else None

    def _accept_and_win(self, lead_id: str, assignment: dict[str, Any]) -> dict[str, Any]:
        self.screen.title("Accepted, won")
        body = {"assignment_id": assignment["assignment_id"]}
        accepted = self.system.post(f"/routing/v1/leads/{lead_id}/assignment:accept", body)
        self.screen.step(f"the rep accepts: {accepted['state']}")
        deal = self.system.post(
            "/routing/v1/deals",
            {
                "lead_id": lead_id,
                "external_id": "crm-1042",
                "name": "Harbor Lane, yearly",
                "value_minor": DEAL_MINOR,
                "currency": "EUR",
            },
        )
        won: dict[str, Any] = self.system.patch(f"/routing/v1/deals/{deal['deal_id']}", {"won": True})
        self.screen.step(f"deal {won['name']}: won, {money(DEAL_MINOR)}, conversion {won['conversion_id']}")
        return won

    def _other_money(self) -> None:
        self.screen.title("Other money, and what it cost")
        for number, query in enumerate(
            ("utm_source=newsletter&utm_medium=email&utm_campaign=november", "gclid=Cj0abc")
        ):
            at = (datetime.now(UTC) - timedelta(days=3 - number)).isoformat()
            touch = {
                "anonymous_id": "browser-81aa",
                "type": "page_view",
                "url": f"{SITE}/product?{query}",
                "occurred_at": at,
            }
            self.system.post("/capture/v1/touches", touch)
        secret = self._sources["stripe"]["secret"]
        payment = forms.stripe(secret, TALIA, "Talia Summers", 236_81, "EUR", "browser-81aa")
        self._deliver("stripe", payment)
        self._deliver("stripe", payment)
        self.screen.step(f"a Stripe payment of {money(23_681)} by {TALIA}, delivered twice")
        landing = "/products/kit?utm_source=google&utm_medium=cpc&utm_campaign=spring-demo"
        secret = self._sources["shopify"]["secret"]
        self._deliver("shopify", forms.shopify_order(secret, RHEA, "Rhea", "249.90", "EUR", landing))
        self.screen.step(f"a Shopify order of {money(24_990)} by {RHEA}")
        today = datetime.now(UTC).date().isoformat()
        costs = [
            {"date": today, "channel": channel, "amount_minor": amount, "currency": "EUR"}
            for channel, amount in (("Paid Search", 90_000), ("Organic Social", 20_000), ("Email", 5_000))
        ]
        self.system.post("/capture/v1/costs", {"costs": costs})
        self.screen.step("costs of the day: Paid Search, Organic Social, Email")

    def _credits(self, conversion_id: str) -> None:
        self.screen.title("Who earned it: seven models side by side")
        self._models = MODELS
        credits = {model: self._credit(conversion_id, model) for model in MODELS}
        touches = {touch["touch_id"]: touch for touch in journey(self.system, NORA)["touches"]}
        rows = []
        for touch_id, touch in touches.items():
            earned = [_earned(credits[model], touch_id) / 100 for model in MODELS]
            rows.append((touch["occurred_at"][:10], touch["channel"], touch["type"], *earned))
        sums = [sum(each["value_minor"] for each in credits[model]["credits"]) for model in MODELS]
        rows.append(("sum", "", "", *(total / 100 for total in sums)))
        self.screen.table(f"Nora's deal of {money(DEAL_MINOR)}", ("touch", "channel", "type", *MODELS), rows)
        self._sums_exact = all(total == DEAL_MINOR for total in sums)

    def _credit(self, conversion_id: str, model: str) -> dict[str, Any]:
        def look() -> dict[str, Any] | None:
            found: dict[str, Any] = self.system.get(f"/attribution/v1/conversions/{conversion_id}/credits", model=model)
            return found if found["credits"] else None

        return wait_for(f"the credits by {model}", look)

    def _reports(self) -> None:
        today = datetime.now(UTC).date()
        query = {"dimension": "channel", "from": str(today - timedelta(days=1)), "to": str(today + timedelta(days=1))}
        expected = DEAL_MINOR + 23_681 + 24_990

        def look() -> dict[str, Any] | None:
            found: dict[str, Any] = self.system.get(
                "/attribution/v1/reports/attribution", model="position_based", **query
            )
            return found if sum(row["value_minor"] for row in found["rows"]) == expected else None

        report = wait_for("the report", look)
        compared = self.system.get("/attribution/v1/reports/compare", models=",".join(MODELS[:3]), **query)
        rows = [(row["key"], *(row[model]["value_minor"] / 100 for model in MODELS[:3])) for row in compared["rows"]]
        self.screen.table("models compared, EUR", ("channel", *MODELS[:3]), rows)
        rows = [
            (
                row["key"],
                float(row["conversions"]),
                row["value_minor"] / 100,
                None if row["cost_minor"] is None else f"{row['cost_minor'] / 100:,.2f}",
                None if row["roi"] is None else f"{float(row['roi']):.2f}",
            )
            for row in report["rows"]
        ]
        self.screen.table(
            "attribution by channel, position based, EUR", ("channel", "conversions", "value", "cost", "ROI"), rows
        )

    def _account(self) -> bool:
        """Compare what was acknowledged with what the system shows."""
        self.screen.title("The account: nothing lost, nothing twice")
        acknowledged, lost, doubled = self.ledger.compare(self.system)
        conversions = {email: journey(self.system, email)["conversions"] for email in (NORA, TALIA, RHEA)}
        sent = [(mail.to, mail.subject) for mail in self.inbox.all()]
        submissions = [t for t in journey(self.system, NORA)["touches"] if t["type"] == "demo_requested"]
        checks = (
            ("touches acknowledged, lost", acknowledged, lost, lost == 0),
            ("touches acknowledged, doubled", acknowledged, doubled, doubled == 0),
            (
                "people with one conversion each",
                3,
                sum(len(each) == 1 for each in conversions.values()),
                all(len(each) == 1 for each in conversions.values()),
            ),
            ("form delivered twice, kept", 2, len(submissions), len(submissions) == 1),
            ("messages, sent twice", len(sent), len(sent) - len(set(sent)), len(sent) == len(set(sent))),
            ("models that sum to the cent", len(MODELS), len(MODELS) if self._sums_exact else 0, self._sums_exact),
        )
        rows = [(what, expected, found, "yes" if good else "NO") for what, expected, found, good in checks]
        self.screen.table("", ("what", "of", "found", "as it should be"), rows)
        if self.system.data_dir is not None:
            restarted = [f"{row['name']} ({row['restarts']})" for row in self.system.processes() if row["restarts"]]
            self.screen.step(f"restarted meanwhile: {', '.join(restarted)}")
        return all(good for *_, good in checks)


def _earned(credits: dict[str, Any], touch_id: str) -> int:
    return sum(each["value_minor"] for each in credits["credits"] if each["touch_id"] == touch_id)


__all__ = ["GaveUp", "Story"]
