"""Sentences as they come in: to check an encoder with, and to calibrate int8 on.

Support requests, moderation, product listings, tickets, small talk; short, long, in several
languages, with typing errors, numbers and emoji.
"""

from __future__ import annotations

SENTENCES: tuple[str, ...] = (
    "I am still waiting on my card, it was supposed to arrive last week.",
    "why was i charged twice for the same purchase??",
    "My top-up failed and the money is gone.",
    "Can I change my PIN at any cash machine?",
    "What is the exchange rate for euros today?",
    "The ATM swallowed my card in Lisbon, what now",
    "Please cancel the transfer I made this morning to the wrong account.",
    "How do I verify my identity without a passport?",
    "cash withdrawal shows as pending since monday",
    "Do you support Apple Pay in Austria?",
    "There is a $1 fee on my statement that I don't recognise.",
    "I forgot my passcode and the app locked me out.",
    "Set an alarm for 6:45 tomorrow morning",
    "what's the weather going to be like in Oslo this weekend",
    "Play the new album by Rosalía on the living room speaker",
    "How many calories are in a cup of cooked rice?",
    "book me a table for four at an italian place around 8",
    "Translate 'where is the train station' into Japanese.",
    "Remind me to call the dentist when I get home.",
    "turn the lights down a bit",
    "Is my flight to Denver delayed?",
    "How do you say thank you in Swahili?",
    "tell me a joke",
    "ok",
    "yes please",
    "no",
    "?",
    "You people are useless, I have been on hold for 50 minutes!!!",
    "Thanks so much, that solved it 🎉",
    "😡😡😡",
    "I will find you and make you regret this.",
    "This is the best vacuum cleaner I have ever owned, five stars.",
    "Arrived broken. The box was crushed and two of the six glasses were shattered.",
    "Great value but the sleeves are a little short.",
    "WIN A FREE IPHONE NOW!!! Click http://bit.example/abc and claim your prize before midnight",
    "URGENT: your account will be suspended, confirm your password at secure-login.example",
    "Hi Anna, are we still on for lunch on Thursday? Let me know what time suits you.",
    "Congratulations! You have been selected for a 1000 GBP gift card. Reply YES to 80086.",
    "Men's waterproof hiking boots, leather, size 44, brown, Vibram sole",
    "USB-C to HDMI adapter 4K 60Hz aluminium",
    "Organic cold-pressed olive oil 500 ml, Crete, harvest 2025",
    "Stainless steel water bottle, 750ml, keeps drinks cold for 24 hours",
    "Kids' dinosaur pyjamas, 100% cotton, 3-4 years, green",
    "Replacement toner cartridge for laser printers, black, 2,600 pages",
    "The build fails on main since commit 4f2a91c: undefined reference to `parse_header'.",
    "TypeError: cannot read properties of undefined (reading 'map') at Cart.jsx:88",
    "Production database is at 98% disk, replication lag 340 s and growing.",
    "Please grant me read access to the sales dashboard, my manager approved it.",
    "Laptop does not wake from sleep after the last update",
    "VPN disconnects every ten minutes when I work from the Berlin office.",
    "Feature request: export the report as CSV, not only as PDF.",
    "Invoice 2025-00417 shows the old billing address, can you issue a corrected one?",
    "We would like to upgrade from 25 to 40 seats before the renewal on 1 March.",
    "How long do you keep my data after I delete my account?",
    "Ich habe meine Karte verloren und brauche dringend eine neue.",
    "Wann wird mir der Betrag erstattet?",
    "Je n'arrive pas à me connecter à mon compte depuis hier soir.",
    "¿Puedo devolver un artículo sin el recibo original?",
    "Quanto tempo leva para a transferência chegar?",
    "Il pacco risulta consegnato ma non l'ho ricevuto.",
    "我的订单什么时候发货？",
    "パスワードを忘れました。",
    "Где мой заказ?",
    "هل يمكنني إلغاء اشتراكي؟",
    "The patient reports mild chest pain after exercise, no shortness of breath, no history.",
    "The tenant shall give written notice of at least three months before the end of the term.",
    "Scientists found that the glacier had lost a third of its volume within two decades.",
    "The central bank left its key rate unchanged at 2.25%, citing sticky service prices.",
    "Late goal earns United a point in a rain-soaked derby.",
    "A man is playing a guitar on stage.",
    "Someone performs music in front of an audience.",
    "The committee did not approve the proposal.",
    "The proposal was approved by the committee.",
    "He said that the new regulations would not take effect until after the holidays, which gave "
    "most of the smaller companies enough time to prepare.",
    "I ordered two items on the 3rd, order number 88-20417. The first one arrived on time and is "
    "fine. The second one was marked as delivered on Friday, but nobody rang, there is no note, "
    "and the neighbours have nothing either. I called the carrier, who told me to contact you; "
    "your chat told me to contact the carrier. I have been a customer for nine years and I would "
    "simply like either the parcel or my money back, preferably before the end of the month, "
    "because it was meant to be a birthday present. Could somebody please look into this and "
    "call me back on weekdays after five? Thank you.",
    "Summary of the incident: at 09:12 UTC the load balancer began returning 502 for about 7% of "
    "requests in the eu-west region. The on-call engineer rolled back the release at 09:31, error "
    "rates returned to normal at 09:38. Root cause was a connection pool that was sized for the "
    "previous instance type. Follow-up actions are listed below and have owners.",
)
