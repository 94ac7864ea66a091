"""Words that give away mood, intent, urgency and language. Data only.

An entry is one word or several; `*` at the end of a word stands for any ending. Accents and case do not matter.
Entries in Japanese and Chinese are looked for anywhere, since those scripts set no spaces.
"""

from __future__ import annotations

# Language → words, most of them short and frequent; what is shared by two languages counts for both.
STOP_WORDS: dict[str, str] = {
    "en": """
        the a is are my i you it to of and for in on where what how much do does have has can could please when your
        not this that with was be will order hi hello thanks thank want need still just me we there get been would
        am
    """,
    "es": """
        el la los las de que y en un una es mi por para con no se lo como donde cuanto cuesta hola gracias pedido
        quiero tengo esta este muy pero mas tienen puedo cuando todavia ya me su del al necesito favor buenas
    """,
    "pt": """
        o a os as de que e em um uma é meu minha por para com não se como onde quanto custa olá oi obrigado obrigada
        pedido quero tenho está este muito mas tem vocês posso quando ainda já me seu do da no na preciso você boa
    """,
    "de": """
        der die das ein eine ist und ich sie es mein meine wo was wie viel kostet haben hat kann bitte wann nicht
        mit für auf bestellung hallo danke guten ihr noch immer zu den im möchte sehr aber wir uns habe wird
    """,
    "fr": """
        le la les de que et en un une est mon ma par pour avec ne pas se comment où combien coûte bonjour merci
        commande je j'ai vous ce cette très mais plus avez puis quand toujours me votre du au suis voudrais il
    """,
    "it": """
        il lo la i gli le di che e in un una è mio mia per con non si come dove quanto costa ciao grazie ordine
        voglio ho questo molto ma più avete posso quando ancora già mi suo del al sono vorrei buongiorno
    """,
}

# Weight > 0 pleased, < 0 displeased; 1 plain, 2 strong, 3 very strong.
MOOD: dict[float, str] = {
    3: "best ever, absolutely love, excelente trabajo, ausgezeichnet, 最高",
    2: """
        love, loved, excellent, amazing, awesome, fantastic, perfect, wonderful, delighted, brilliant, encanta,
        encantado, encantada, excelente, perfecto, maravilloso, increible, genial, adorei, amei, perfeito,
        maravilhos*, otimo, otima, super, begeistert, perfekt, wunderbar, toll, hervorragend, fantastisch, adore,
        parfait, magnifique, genial, fantastico, perfetto, ottimo, meraviglios*, bellissim*, رائع, ممتاز, बहुत
        अच्छा, शानदार, 素晴らしい, 大好き, 😍, ❤, 🎉
    """,
    1: """
        good, great, nice, happy, glad, thanks, thank, appreciate, helpful, pleased, fast, lovely, bueno, buena,
        bien, gracias, contento, contenta, rapido, feliz, bom, boa, obrigado, obrigada, satisfeito, satisfeita,
        legal, gut, danke, dankeschon, zufrieden, schnell, freue, bien, bon, bonne, merci, content, contente,
        heureux, rapide, ravi, bene, buono, grazie, contento, veloce, felice, شكرا, جيد, جميل, धन्यवाद, अच्छा,
        ありがとう, 嬉しい, 良い, 谢谢, 😊, 🙂, 👍, 🙏
    """,
    -1: """
        late, delay*, wait, waiting, slow, problem*, issue, wrong, missing, sorry, unfortunately, worried, concern*,
        expensive, again, confus*, difficult, retras*, tarde, tarda, problema*, esperando, lento, falta, caro,
        atras*, demora*, demorando, errado, faltando, verspat*, problem, warte, warten, langsam, falsch, fehlt,
        teuer, leider, retard, attends, attend, probleme, lent, manque, cher, malheureusement, ritardo, aspetto,
        aspettando, lento, sbagliato, manca, purtroppo, متأخر,
        مشكلة, انتظر, देरी, समस्या, गलत, 遅い, 遅れ, 問題, 困っ, まだ届,
        😕, 🙁, 😞
    """,
    -2: """
        nobody answers, no answer, still waiting,
        bad, broken, broke, damaged, defect*, disappointed, disappointing, unacceptable, unhappy, upset, poor,
        faulty, rude, complain*, cracked, never arrived, not working, malo, mala, roto, rota, danad*, decepcion*,
        inaceptable, molest*, queja, defectuos*, ruim, quebrad*, danificad*, decepcion*, inaceitavel, reclama*,
        defeito, estragad*, schlecht, kaputt, beschadigt, enttausch*, inakzeptabel, beschwer*, defekt, mauvais,
        mauvaise, casse, cassee, abime*, decu, decue, inacceptable, plainte, defectueu*, rotto, rotta, rotti,
        danneggiat*, delus*, inaccettabile, reclamo, difettos*, pessimo, سيئ, مكسور, محبط, شكوى, खराब, टूटा, टूटी,
        निराश, शिकायत, 壊れ, ひどい, 最悪, 不良, 届いていない, 届いていません, 😡, 😠, 💔
    """,
    -3: """
        terrible, awful, horrible, worst, furious, angry, scam, fraud, hate, disgusting, useless, ridiculous,
        outrageous, pesimo, horrible, estafa, furios*, fatal, odio, asco, pessimo, horrivel, golpe, furios*,
        absurdo, vergonha, furchtbar, schrecklich, betrug, wutend, unverschamt, hasse, katastroph*, nul, horrible,
        arnaque, furieux, furieuse, scandaleux, honteux, terribile, orribile, truffa, furioso, vergogn*, schifo,
        احتيال, فظيع, घटिया, धोखा, 詐欺, 🤬
    """,
}

# A mood word within three words after one of these turns round ("not good"); weaker than its opposite.
NEGATIONS = """
        not, no, never, isn't, wasn't, aren't, don't, doesn't, didn't, can't, cannot, won't, hardly, nothing,
        without, nunca, ni, nada, sin, nao, jamais, nem, sem, nicht, kein, keine, keinen, nie, ohne, pas, jamais,
        sans, ne, non, mai, senza, لا, ليس, لم, ما, नहीं, न, मत
    """
INTENSIFIERS = """
        very, really, so, extremely, absolutely, totally, too, muy, super, tan, demasiado, muito, bem, demais, sehr,
        wirklich, total, so, absolut, tres, vraiment, trop, tellement, molto, davvero, troppo, assai, جدا, बहुत
    """
URGENT = """
        urgent, urgently, asap, immediately, right now, emergency, today, now, straight away, urgente, urgentemente,
        ya mismo, inmediatamente, hoy, ahora, imediatamente, agora, hoje, dringend, sofort, umgehend, heute, jetzt,
        immediatement, aujourd'hui, maintenant, tout de suite, subito, immediatamente, oggi, adesso, عاجل, فورا,
        الآن, तुरंत, जल्दी, अभी, 至急, 今すぐ, 急いで, lawyer, legal action, police, chargeback, abogado, denuncia,
        advogado, procon, anwalt, avocat, avvocato
    """

# Intent → words. What nobody's words fit is `other`; the order decides ties, so the more consequential comes first.
INTENTS: dict[str, str] = {
    "human_agent": """
        human, real person, speak to someone, talk to someone, talk to a person, agent, representative, manager,
        hablar con alguien, una persona, hablar con una persona, humano, encargad*, gerente, falar com alguem,
        atendente, uma pessoa, mitarbeiter, mit jemandem sprechen, einem menschen, parler a quelqu'un, un
        conseiller, une personne, responsable, parlare con qualcuno, un operatore, una persona, operatore, موظف, شخص
        حقيقي, किसी इंसान, व्यक्ति से बात, 担当者, 人と話
    """,
    "refund": """
        refund*, money back, reimburs*, chargeback, reembols*, devolucion del dinero, devuelv* dinero, mi dinero,
        estorno, dinheiro de volta, meu dinheiro, ruckerstatt*, erstattung, geld zuruck, rembours*, rimbors*, soldi
        indietro, استرداد, استرجاع, رिफंड, रिफंड, पैसे वापस, 返金
    """,
    "cancellation": """
        cancel*, call off, anular, anulo, annul*, stornier*, storno, kundig*, disdire, disdetta, إلغاء, ألغي, रद्द,
        कैंसल, キャンセル, 解約
    """,
    "complaint": """
        complain*, complaint, broken, damaged, defect*, faulty, unacceptable, terrible, awful, wrong item, wrong
        size, disappointed, worst, scam, not working, doesn't work, cracked, queja*, roto, rota, danad*, defectuos*,
        inaceptable, pesimo, estafa, reclama*, quebrad*, danificad*, defeito, pessimo, beschwer*, kaputt, defekt,
        beschadigt, falsche, inakzeptabel, plainte, casse, cassee, defectueu*, abime*, inacceptable, reclamo, rotto,
        rotta, rotti, difettos*, danneggiat*, inaccettabile, شكوى, مكسور, सीलन, खराब, टूटा, टूटी, शिकायत, 壊れ, 不良,
        ひどい, クレーム
    """,
    "order_status": """
        where is my order, where is order, my order, my package, my parcel, order, track*, shipp*, deliver*, arriv*,
        parcel, package, not received, haven't received, mi pedido, pedido, paquete, envio, entrega*, llega*, llego,
        seguimiento, rastre*, meu pedido, encomenda, chega*, chegou, bestellung, paket, lieferung, liefer*,
        sendung*, angekommen, ma commande, commande, colis, livraison, livre, suivi, arrive, il mio ordine, ordine,
        pacco, consegna*, spedi*, arriva*, طلبي, الطلب, شحنة, توصيل, ऑर्डर, डिलीवरी, पार्सल, 注文, 配送, 届, 荷物
    """,
    "appointment": """
        appointment, book, booking, reserv*, schedul*, reschedule, table for, cita, reserva*, agendar, turno,
        consulta, agendamento, marcar, horario, termin, reservier*, buchen, tisch fur, rendez-vous, reserver,
        appuntamento, prenot*, موعد, حجز, अपॉइंटमेंट, बुक, 予約
    """,
    "price_question": """
        price*, cost*, how much, quote, discount, cheap*, precio*, cuanto cuesta, cuanto vale, cuanto es, descuento,
        presupuesto, preco, quanto custa, quanto e, desconto, orcamento, preis*, kostet, kosten, wie viel, rabatt,
        angebot, prix, combien, tarif*, devis, remise, prezzo, quanto costa, costo, sconto, preventivo, سعر, كم,
        خصم, कीमत, दाम, कितने का, 値段, 価格, いくら, 割引
    """,
    "product_question": """
        in stock, available, availability, do you have, do you sell, size*, colo*, material, does it, is it,
        warranty, vegan, organic, hay, tienen, talla*, disponible*, tamano, tiene, venden, garantia, tem, tamanho,
        disponivel, vendem, cor, verfugbar, haben sie, habt ihr, grosse, auf lager, farbe, garantie, avez-vous, avez
        vous, taille*, couleur, en stock, avete, disponibile, taglia, colore, متوفر, هل لديكم, مقاس, उपलब्ध, क्या
        आपके पास, साइज, 在庫, ありますか, サイズ
    """,
    "thanks": """
        thanks, thank you, thx, appreciate, gracias, obrigado, obrigada, valeu, danke, vielen dank, dankeschon,
        merci, grazie, شكرا, धन्यवाद, शुक्रिया, ありがとう, 谢谢
    """,
    "greeting": """
        hi, hello, hey, good morning, good afternoon, good evening, hola, buenos dias, buenas, buenas tardes, oi,
        ola, bom dia, boa tarde, hallo, guten tag, guten morgen, bonjour, bonsoir, salut, ciao, buongiorno, salve,
        مرحبا, السلام عليكم, नमस्ते, こんにちは, 你好
    """,
    "spam": """
        bitcoin, crypto, click here, you won, winner, free money, casino, lottery, investment opportunity, seo
        services, haga clic, ganaste, loteria, clique aqui, voce ganhou, gewonnen, cliquez ici, vous avez gagne, hai
        vinto, clicca qui
    """,
}

# Words of an enum value or a property → our name for that intent.
INTENT_ALIASES: dict[str, str] = {
    "human_agent": "human agent person escalation escalate handoff handover representative operator",
    "refund": "refund reimbursement return returns moneyback",
    "cancellation": "cancel cancellation cancelling unsubscribe churn",
    "complaint": "complaint complain problem issue defect damage damaged quality dissatisfaction",
    "order_status": "order status tracking track delivery shipping shipment parcel where",
    "appointment": "appointment booking book reservation schedule scheduling visit meeting",
    "price_question": "price pricing cost quote discount payment billing",
    "product_question": "product availability stock catalog catalogue item information info inquiry enquiry question",
    "thanks": "thanks thank gratitude praise compliment appreciation feedback",
    "greeting": "greeting greet hello welcome smalltalk small chitchat",
    "spam": "spam advertising scam junk abuse",
    "other": "other unknown unclear none general misc miscellaneous unsupported",
}
